"""Decoding speed side by side: SGLang alone, SGLang's own speculation where it runs, LVSPEC.

One clip a request; what is timed is decoding, while the whole batch decodes. A side's figure at a
batch size is the median of ``--repeats`` runs, taken in turn with the other sides'. LVSPEC drafts
every round: it does not measure whether that pays. A batch that the KV pool has no room for is left
out, and so is one of too short answers; its row says why.
"""

import argparse
import json
import os
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from lvspec_sglang.bench.baseline import asked_of, read_baseline
from lvspec_sglang.bench.decoding import COUNTED, Asked, held_out, payloads
from lvspec_sglang.bench.shapes import FPS, FRAME, SHAPES, TOKENS_A_PAIR, shape_of, write_shape
from lvspec_sglang.bench.simulated import accepted_trace, read_trace
from lvspec_sglang.bench.speed_runs import TIMES, SpeedRuns
from lvspec_sglang.bench.speed_table import ALONE, Side, floors_of, show
from lvspec_sglang.bench.timed_server import TIMES_ENV, TRACE_ENV
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.config_json import CONFIG_ENV, read_server
from lvspec_sglang.miniworld import paths
from lvspec_sglang.record import new_record, write_record
from lvspec_sglang.serving import LocalServer, ServerFailed

SIDES = ("alone", "strict", "balanced", "fast")


def sides(engine: str, names: Sequence[str] = SIDES) -> list[Side]:
    """What is compared.

    Args:
        engine: the host's own algorithm, or empty.
        names: some of ``SIDES``.

    Raises:
        ValueError: a name that is none of them.
    """
    for name in names:
        if name not in SIDES:
            raise ValueError(f"--sides {name}: not one of {', '.join(SIDES)}")
    return [
        *([Side(ALONE, "alone", None)] if "alone" in names else []),
        *([Side(f"SGLang {engine}", engine, None)] if engine else []),
        *(Side(f"LVSPEC {name}", "LVSPEC", name) for name in SIDES[1:] if name in names),
    ]


def compared(arguments: argparse.Namespace) -> list[Side]:
    """What the command's arguments compare; with a baseline the target alone is not measured.

    Raises:
        ValueError: a wrong ``--sides``, or one that measures what the baseline has.
    """
    names = arguments.sides.split(",") if arguments.sides else SIDES
    if arguments.baseline is None:
        return sides(arguments.host_algorithm, names)
    if arguments.sides and "alone" in names:
        raise ValueError(
            "--sides alone with --baseline: the baseline has it; leave one of them out"
        )
    return sides(arguments.host_algorithm, [name for name in names if name != "alone"])


def run(arguments: argparse.Namespace) -> None:
    """Measure and print the table."""
    on_gpu = torch.cuda.is_available()
    dummy = {name for name in (arguments.target, arguments.draft) if name in SHAPES}
    if dummy and not on_gpu:
        raise ValueError(f"the shape {sorted(dummy)[0]} needs a CUDA GPU; here use --target mini")
    if arguments.host_algorithm and not on_gpu:
        raise ValueError("SGLang's own speculation needs a CUDA GPU; leave --host-algorithm out")
    simulate = arguments.accepted is not None or arguments.trace is not None
    if dummy and not simulate:
        raise ValueError("dummy weights agree on nothing: add --accepted 7.76 or --trace FILE")
    batches = arguments.batches
    measured_sides = compared(arguments)
    with tempfile.TemporaryDirectory(prefix="lvspec-speed-") as name:
        folder = Path(name)
        target, draft = (
            _checkpoint(arguments.target, 0, folder),
            _checkpoint(arguments.draft, 1, folder),
        )
        if simulate:
            trace = (
                read_trace(arguments.trace, arguments.steps)
                if arguments.trace
                else accepted_trace(arguments.accepted, arguments.steps)
            )
            (folder / "trace.json").write_text(json.dumps(trace))
        record = new_record("speed") | {
            "acceptance": "simulated" if simulate else "measured",
            "weights": "dummy" if dummy else "real",
            "counted": COUNTED,
            "asked": asked_of(arguments),
            "floors_ms": floors_of(
                _shape(arguments.target), _shape(arguments.draft), arguments.steps
            ),
        }
        baseline = []
        if arguments.baseline is not None:
            baseline = read_baseline(arguments.baseline, record, batches)
            record["baseline"] = str(arguments.baseline)
        prompts = _prompts(arguments, bool(dummy), folder, max(batches))
        named = _servers(arguments, target, draft, dummy, simulate, folder)
        wanted = {side.server for side in measured_sides}
        servers = {name: server for name, server in named.items() if name in wanted}
        own = arguments.tokens + arguments.steps + 1
        runs = SpeedRuns(servers, measured_sides, prompts, batches, folder, baseline)
        with closing(runs.measure(arguments.in_turn, arguments.repeats, own)) as measuring:
            for measured in measuring:
                record |= measured
                if arguments.json:
                    write_record(arguments.json, record)
    show(record)
    if runs.failed:
        raise ServerFailed("\n".join(runs.failed))


def _checkpoint(name: str, place: int, folder: Path) -> Path:
    if name == "mini":
        return paths()[place]
    if name in SHAPES:
        return write_shape(name, folder)
    if not (Path(name) / "config.json").is_file():
        raise ValueError(f"{name!r} is neither mini, {', '.join(SHAPES)} nor a checkpoint's folder")
    return Path(name)


def _shape(name: str) -> Any:
    return SHAPES.get(name) or shape_of(paths().target if name == "mini" else Path(name))


def _prompts(
    arguments: argparse.Namespace, dummy: bool, folder: Path, most: int
) -> list[dict[str, Any]]:
    if not dummy:
        asked = held_out(min(arguments.clips, most), arguments.seed, folder)
        return payloads(asked, most, arguments.tokens)
    frames = 2 * (arguments.video_tokens // TOKENS_A_PAIR)
    asked = []
    for number in range(min(arguments.clips, most)):
        pictures = moving_square(frames, arguments.seed + number, FRAME, FRAME)
        clip = write_clip(folder / f"{number}.mp4", pictures, fps=FPS)
        asked.append(Asked(clip, "What happens?"))
    return payloads(asked, most, arguments.tokens)


def _servers(
    arguments: argparse.Namespace, target: Path, draft: Path, dummy: set[str], simulate: bool,
    folder: Path,
) -> dict[str, LocalServer]:  # fmt: skip
    flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flag.add_argument("--lvspec-config", default=os.environ.get(CONFIG_ENV, "{}"))
    given, others = flag.parse_known_args(shlex.split(arguments.server_args))
    common = ["--random-seed", "1", *others]
    common += ["--load-format", "dummy"] if dummy else []
    common += [] if torch.cuda.is_available() else ["--dtype", "float32"]
    drafting = [
        "--speculative-draft-model-path", str(draft),
        "--speculative-num-steps", str(arguments.steps),
    ]  # fmt: skip
    env = {TIMES_ENV: str(folder / TIMES)}
    env |= {TRACE_ENV: str(folder / "trace.json")} if simulate else {}
    lvspec = LocalServer(
        target, *common, "--speculative-algorithm", "LVSPEC", *drafting,
        "--lvspec-config", always_drafting(given.lvspec_config), env=env,
    )  # fmt: skip
    module = lvspec.command.index("sglang.launch_server")
    lvspec.command[module] = "lvspec_sglang.bench.timed_server"
    found = {"alone": LocalServer(target, *common), "LVSPEC": lvspec}
    if arguments.host_algorithm:
        own = ["--speculative-algorithm", arguments.host_algorithm]
        own += drafting if arguments.host_algorithm == "STANDALONE" else []
        found[arguments.host_algorithm] = LocalServer(target, *common, *own)
    return found


def always_drafting(given: str) -> str:
    """A server's configuration ``given``, JSON or the path of it, less measuring what pays."""
    config = read_server(given)
    length = {**config.get("draft_length", {}), "measure": False}
    return json.dumps(config | {"draft_length": length})
