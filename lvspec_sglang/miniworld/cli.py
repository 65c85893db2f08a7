"""The `lvspec miniworld` command: train, sample, score, evaluate, layers, parity, sheet."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lvspec_sglang.miniworld.scene import TUNING


def add_parser(subparsers: Any) -> None:
    """Add `miniworld` with its subcommands to the `lvspec` command's subparsers."""
    parser = subparsers.add_parser(
        "miniworld", help="synthetic videos with known truth, and the pair trained on them"
    )
    add_commands(parser)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands to a parser."""
    commands = parser.add_subparsers(dest="miniworld_command", required=True)

    train = commands.add_parser("train", help="train the pair, or train it further")
    train.add_argument("--out", type=Path, required=True, help="where target/ and draft/ go")
    train.add_argument(
        "--run", type=Path, required=True, dest="state", help="state of the run, to resume from"
    )
    train.add_argument("--device", default="cpu", help="torch device: cpu, cuda, cuda:1 (cpu)")
    train.add_argument("--threads", type=int, default=0, help="CPU threads (torch's choice)")
    train.add_argument("--longer", type=float, default=1.0, help="factor on all steps (1)")
    train.add_argument(
        "--continue-from", type=Path, help="train the pair in this directory further instead"
    )
    train.add_argument("--steps", type=int, default=1000, help="steps to continue for (1000)")
    train.add_argument("--only", choices=("target", "draft"), help="continue only this one")
    train.set_defaults(run_command=_train)

    sample = commands.add_parser("sample", help="write clips, their truth and requests")
    sample.add_argument("--clips", type=int, required=True)
    sample.add_argument("--seed", type=int, default=0, help="first held-out seed (0)")
    sample.add_argument("--out", type=Path, required=True)
    sample.set_defaults(run_command=_sample)

    score = commands.add_parser("score", help="score answers against the truth")
    score.add_argument("--truth", type=Path, required=True, help="truth.jsonl of sample")
    score.add_argument("--answers", type=Path, required=True, help="lines of video, question, text")
    score.add_argument("--json", action="store_true", help="print JSON instead of a table")
    score.set_defaults(run_command=_score)

    evaluate = commands.add_parser("evaluate", help="measure the pair on held-out clips")
    evaluate.add_argument("--clips", type=int, default=500)
    evaluate.add_argument("--seed", type=int, default=0, help="first held-out seed (0)")
    evaluate.add_argument("--pair", type=Path, help="directory of target/ and draft/ (package's)")
    evaluate.add_argument("--device", default="cpu")
    evaluate.add_argument("--threads", type=int, default=0)
    evaluate.add_argument("--json", type=Path, help="write the figures here too")
    evaluate.set_defaults(run_command=_evaluate)

    layers = commands.add_parser(
        "layers", help="find the target's layers whose attention tells facts from wording"
    )
    layers.add_argument("--clips", type=int, default=120, help="held-out clips (120)")
    layers.add_argument(
        "--seed", type=int, default=TUNING, help=f"first held-out seed ({TUNING}: those for tuning)"
    )
    layers.add_argument("--pair", type=Path, help="directory of target/ and draft/ (package's)")
    layers.add_argument("--threads", type=int, default=0, help="CPU threads (torch's choice)")
    layers.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    layers.set_defaults(run_command=_layers)

    parity = commands.add_parser("parity", help="compare SGLang's greedy tokens to transformers'")
    parity.add_argument("--clips", type=int, default=10)
    parity.add_argument("--seed", type=int, default=0, help="first held-out seed (0)")
    parity.add_argument("--model", type=Path, help="checkpoint directory (the package's target)")
    parity.add_argument(
        "--server", type=json.loads, default={}, help="JSON of more sglang.Engine arguments"
    )
    parity.set_defaults(run_command=_parity)

    sheet = commands.add_parser("sheet", help="picture of a clip above what the pair says of it")
    sheet.add_argument("--seed", type=int, default=0, help="held-out seed (0)")
    sheet.add_argument("--pair", type=Path, help="directory of target/ and draft/ (package's)")
    sheet.add_argument("--out", type=Path, required=True, help="PNG file")
    sheet.set_defaults(run_command=_sheet)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        arguments.run_command(arguments)
    except (ValueError, OSError) as error:
        print(f"lvspec miniworld: {error}", file=sys.stderr)
        return 2
    return 0


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from lvspec_sglang.miniworld.recipe import continue_pair, make_pair

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.continue_from is None:
        make_pair(arguments.out, arguments.state, arguments.device, arguments.longer, log=_say)
        return
    names = (arguments.only,) if arguments.only else ("target", "draft")
    continue_pair(
        arguments.continue_from,
        arguments.out,
        arguments.state,
        arguments.steps,
        arguments.device,
        names,
        log=_say,
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _sample(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.miniworld.clips import chat_requests, write_clip
    from lvspec_sglang.miniworld.scene import HELD_OUT

    _check_clips(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = range(HELD_OUT + arguments.seed, HELD_OUT + arguments.seed + arguments.clips)
    truths = [write_clip(seed, arguments.out) for seed in seeds]
    requests = [line for truth in truths for line in chat_requests(truth, arguments.out)]
    _write_lines(arguments.out / "truth.jsonl", truths)
    _write_lines(arguments.out / "bench_serving.jsonl", requests)
    print(
        f"{arguments.clips} clips, truth.jsonl and {len(requests)} requests in "
        f"bench_serving.jsonl in {arguments.out}"
    )


def _check_clips(arguments: argparse.Namespace) -> None:
    if arguments.clips < 1:
        raise ValueError(f"--clips {arguments.clips}: give at least 1")
    _check_seed(arguments)


def _check_seed(arguments: argparse.Namespace) -> None:
    if arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed}: give 0 or more; held-out seeds count from 0")


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _score(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.miniworld.score import read_lines, score_answers

    scores = score_answers(read_lines(arguments.truth), read_lines(arguments.answers))
    if arguments.json:
        print(json.dumps({name: score.to_json() for name, score in scores.items()}))
        return
    print(f"{'':10}{'accuracy':>10}{'parse rate':>12}{'facts':>8}{'answers':>9}")
    for name, score in scores.items():
        print(
            f"{name:10}{score.accuracy:>10.2%}{score.parse_rate:>12.2%}"
            f"{score.facts:>8}{score.answers:>9}"
        )
    for entry in scores["all"].wrong:
        asked = f" {entry['question']}" if entry["question"] else ""
        print(f"{entry['video']}{asked} {entry['fact']}: {entry['said']}, truth {entry['truth']}")


def _evaluate(arguments: argparse.Namespace) -> None:
    import torch

    from lvspec_sglang.miniworld import paths
    from lvspec_sglang.miniworld.evaluate import HeldOut
    from lvspec_sglang.miniworld.report import evaluate_pair

    _check_clips(arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    root = arguments.pair or paths().target.parent
    held_out = HeldOut.make(arguments.clips, arguments.seed)
    figures = evaluate_pair(root, held_out, arguments.device, _say)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def _layers(arguments: argparse.Namespace) -> None:
    import torch

    from lvspec_sglang.miniworld import paths
    from lvspec_sglang.miniworld.layers import rank_pair
    from lvspec_sglang.record import new_record, write_record

    _check_clips(arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    root = arguments.pair or paths().target.parent
    figures = rank_pair(root, arguments.clips, arguments.seed, _say)
    if arguments.json:
        write_record(arguments.json, new_record("miniworld layers") | figures)


def _parity(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.miniworld import paths
    from lvspec_sglang.miniworld.parity import compare

    _check_clips(arguments)
    directory = arguments.model or paths().target
    results = compare(directory, arguments.clips, arguments.seed, arguments.server)
    for result in results:
        if not result.same:
            print(f"{result.video} {result.prompt}")
            print(f"  transformers: {result.transformers}\n  sglang:       {result.sglang}")
    print(f"{sum(result.same for result in results)} of {len(results)} answers are the same")


def _sheet(arguments: argparse.Namespace) -> None:
    from lvspec_sglang.miniworld import paths
    from lvspec_sglang.miniworld.checkpoint import load_model
    from lvspec_sglang.miniworld.data import Prompter
    from lvspec_sglang.miniworld.evaluate import HeldOut, answer_all
    from lvspec_sglang.miniworld.sheet import contact_sheet

    _check_seed(arguments)
    root = arguments.pair or paths().target.parent
    held_out = HeldOut.make(1, arguments.seed)
    captions = {}
    for name in ("target", "draft"):
        model, tokenizer = load_model(root / name)
        answers = answer_all(model, Prompter(tokenizer), held_out, questions=0)
        captions[name] = answers[0]["text"]
    contact_sheet(held_out.pixels[0].numpy(), captions, arguments.out)
    print(f"{arguments.out} shows held-out clip {arguments.seed}")
