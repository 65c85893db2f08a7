"""The arguments of the benches that want a GPU; what they import is imported when they run."""

import argparse
from pathlib import Path

from lvspec_sglang.arguments import positive, positives
from lvspec_sglang.bench.shapes import SHAPES


def add_speed_arguments(bench: argparse.ArgumentParser) -> None:
    """The arguments of ``lvspec bench speed`` beside those every bench takes."""
    models = f"mini, {', '.join(SHAPES)} (their shape, dummy weights) or a checkpoint's path"
    bench.add_argument("--target", default="mini", help=f"{models}; default mini")
    bench.add_argument("--draft", default="mini", help="likewise")
    bench.add_argument("--batches", type=positives, default="1,4,16", help="batch sizes (1,4,16)")
    bench.add_argument("--tokens", type=positive, default=128, help="tokens an answer (128)")
    bench.add_argument("--steps", type=positive, default=10, help="drafted tokens a round (10)")
    bench.add_argument("--repeats", type=positive, default=3, help="runs a figure (3)")
    bench.add_argument(
        "--video-tokens", type=positive, default=10000, help="of dummy models (10000)"
    )
    bench.add_argument("--accepted", type=float, help="simulate this mean of accepted tokens")
    bench.add_argument("--trace", type=Path, help="simulate accepted tokens from a JSON list")
    bench.add_argument("--host-algorithm", default="", help="also NGRAM or STANDALONE (GPU only)")
    bench.add_argument(
        "--sides", metavar="SIDE,...", help="of alone, strict, balanced, fast (all of them)"
    )
    bench.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="an earlier record whose target alone is taken, in place of measuring it",
    )
    bench.add_argument(
        "--in-turn", action="store_true", help="one server at a time, where two do not fit"
    )
    bench.add_argument(
        "--server-args", default="", help="more arguments for every server, quoted as in a shell"
    )


def add_kernels_arguments(bench: argparse.ArgumentParser) -> None:
    """The arguments of ``lvspec bench kernels`` beside those every bench takes."""
    bench.add_argument("--shape", default="32B", choices=SHAPES, help="the target's heads (32B)")
    bench.add_argument("--videos", type=positives, help="video tokens; default 1024 to 65536")
    bench.add_argument("--batches", type=positives, help="batch sizes; default 1 to 64")


def speed(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.bench import speed as bench

    bench.run(arguments)


def kernels(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.bench import kernels as bench

    bench.run(arguments)
