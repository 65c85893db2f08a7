"""The ``lvspec bench`` command: one subcommand a measurement, the same arguments for all."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvspec_sglang.arguments import positive, positives
from lvspec_sglang.bench.gpu import add_kernels_arguments, add_speed_arguments, kernels, speed
from lvspec_sglang.client import Refused
from lvspec_sglang.miniworld.scene import TUNING
from lvspec_sglang.serving import ServerFailed


def add_parser(commands: Any) -> None:
    """Add ``bench`` with its subcommands to the ``lvspec`` command's subparsers."""
    parser = commands.add_parser(
        "bench", help="measure fidelity, prefixes, speed, draft lengths, kernels"
    )
    benches = parser.add_subparsers(required=True, metavar="BENCH")

    fidelity = add_bench(
        benches, "fidelity", "facts kept against drafted tokens accepted", _fidelity, 500
    )
    fidelity.add_argument(
        "--rules",
        default="presets",
        metavar="SET,...",
        help="sets of rules, or JSON files (presets)",
    )
    fidelity.add_argument(
        "--questions", type=int, default=3, choices=range(4), help="follow-ups a clip, 0-3 (3)"
    )
    fidelity.add_argument(
        "--servers", type=int, default=1, choices=range(1, 5), help="servers at a time, 1-4 (1)"
    )
    fidelity.add_argument("--plot", type=Path, metavar="PNG", help="draw the curves here")

    prefix = add_bench(
        benches, "prefix", "what a video costs the draft, once and later", _prefix, 8
    )
    prefix.add_argument(
        "--parts", default="prefill,acceptance,turns,users,traffic", metavar="PART,...",
        help="which measurements (all)",
    )  # fmt: skip
    prefix.add_argument(
        "--traffic-seconds", type=float, default=600, help="how long random traffic runs (600)"
    )

    add_speed_arguments(add_bench(benches, "speed", "decoding speed side by side", speed, 16))
    length = add_bench(
        benches,
        "draft-length",
        "what choosing how much to draft costs and saves",
        _draft_length,
        16,
    )
    length.add_argument("--batches", type=positives, default="1,4,16", help="batch sizes (1,4,16)")
    length.add_argument("--tokens", type=positive, default=256, help="tokens an answer (256)")
    length.add_argument("--warm-up", type=int, default=2, help="runs that are not counted (2)")
    length.add_argument("--repeats", type=positive, default=5, help="runs a figure (5)")
    add_kernels_arguments(add_bench(benches, "kernels", "kernels against floors", kernels, 1))


def add_bench(
    benches: Any,
    name: str,
    purpose: str,
    run: Callable[[argparse.Namespace], None],
    clips: int,
) -> argparse.ArgumentParser:
    """Add a bench with the arguments every bench takes.

    Args:
        run: measures and prints a table; a ``ValueError``, a server's failure or its refusal ends
            the command with status 2.
        clips: the default of ``--clips``.
    """
    bench: argparse.ArgumentParser = benches.add_parser(name, help=purpose)
    bench.add_argument("--clips", type=int, default=clips, help=f"held-out clips ({clips})")
    bench.add_argument(
        "--seed", type=int, default=0, help=f"first held-out seed (0); tune from {TUNING} on"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    bench.set_defaults(run=lambda arguments: _guarded(name, run, arguments))
    return bench


def _guarded(
    name: str, run: Callable[[argparse.Namespace], None], arguments: argparse.Namespace
) -> int:
    try:
        if arguments.clips < 1 or arguments.seed < 0:
            raise ValueError(
                f"--clips {arguments.clips} --seed {arguments.seed}: at least 1 clip, a seed from 0"
            )
        run(arguments)
    except (ValueError, FileNotFoundError, Refused, ServerFailed) as error:
        print(f"lvspec bench {name}: {error}", file=sys.stderr)
        return 2
    return 0


def _fidelity(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.bench import fidelity

    fidelity.run(arguments)


def _prefix(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.bench import prefix

    prefix.run(arguments)


def _draft_length(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.bench import draft_length

    draft_length.run(arguments)
