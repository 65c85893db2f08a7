"""Decoding speed side by side: SGLang alone, SGLang's own speculation where it runs, LVSPEC.

One clip a request, read before the clock starts, so that what is timed is decoding. A side's
figure at a batch size is the median of ``--repeats`` runs, taken in turn with the other sides'.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from lvspec_sglang.bench.decoding import Asked, decode, held_out, payloads
from lvspec_sglang.bench.record import new_record, write_record
from lvspec_sglang.bench.shapes import FPS, FRAME, SHAPES, TOKENS_A_PAIR, shape_of, write_shape
from lvspec_sglang.bench.simulated import accepted_trace, read_trace
from lvspec_sglang.bench.timed_server import KEPT, TIMES_ENV, TRACE_ENV
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.config import PRESETS
from lvspec_sglang.miniworld import paths
from lvspec_sglang.serving import LocalServer, together

PHASES = ("draft", "plan", "verify", "relevance", "accept", "round", "between")
BANDWIDTH = {"NVIDIA H200": 4.8e12, "NVIDIA H100 80GB HBM3": 3.35e12}  # bytes a second


class Side(NamedTuple):
    """One way to decode: which server, and what its requests ask for."""

    name: str
    server: str
    preset: str | None


def sides(engine: str) -> list[Side]:
    """What is compared; ``engine`` is the host's own algorithm, or empty."""
    presets = [name for name in ("strict", "balanced", "fast", "paper") if name in PRESETS]
    return [
        Side("SGLang alone", "alone", None),
        *([Side(f"SGLang {engine}", engine, None)] if engine else []),
        *(Side(f"LVSPEC {name}", "LVSPEC", name) for name in presets[:3]),
    ]


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
    batches = [int(size) for size in arguments.batches.split(",")]
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
        prompts = _prompts(arguments, bool(dummy), folder, max(batches))
        servers = _servers(arguments, target, draft, dummy, simulate, folder)
        compared = sides(arguments.host_algorithm)
        rows = _measure(arguments, servers, compared, prompts, batches, folder / "times")
    floors = _floors(target_shape=_shape(arguments.target), draft_shape=_shape(arguments.draft),
                     steps=arguments.steps)  # fmt: skip
    record = new_record("speed") | {
        "acceptance": "simulated" if simulate else "measured",
        "weights": "dummy" if dummy else "real",
        "floors_ms": floors,
        "rows": rows,
    }
    _print(record)
    if arguments.json:
        write_record(arguments.json, record)


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
    common = ["--random-seed", "1", *arguments.server_args.split()]
    common += ["--load-format", "dummy"] if dummy else []
    common += [] if torch.cuda.is_available() else ["--dtype", "float32"]
    drafting = [
        "--speculative-draft-model-path", str(draft),
        "--speculative-num-steps", str(arguments.steps),
    ]  # fmt: skip
    env = {TIMES_ENV: str(folder / "times")}
    env |= {TRACE_ENV: str(folder / "trace.json")} if simulate else {}
    lvspec = LocalServer(target, *common, "--speculative-algorithm", "LVSPEC", *drafting, env=env)
    module = lvspec.command.index("sglang.launch_server")
    lvspec.command[module] = "lvspec_sglang.bench.timed_server"
    found = {"alone": LocalServer(target, *common), "LVSPEC": lvspec}
    if arguments.host_algorithm:
        own = ["--speculative-algorithm", arguments.host_algorithm]
        own += drafting if arguments.host_algorithm == "STANDALONE" else []
        found[arguments.host_algorithm] = LocalServer(target, *common, *own)
    return found


def _measure(
    arguments: argparse.Namespace, servers: dict[str, LocalServer], compared: list[Side],
    prompts: list[dict[str, Any]], batches: list[int], times: Path,
) -> list[dict[str, Any]]:  # fmt: skip
    runs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for group in _turns(arguments.in_turn, servers):
        with together(*group):
            present = [side for side in compared if servers[side.server] in group]
            for side in present:
                decode(servers[side.server], prompts, side.preset)
            for _ in range(arguments.repeats):
                for batch in batches:
                    for side in present:
                        before = _lines(times)
                        figures = decode(servers[side.server], prompts[:batch], side.preset)
                        figures["phases"] = _phases(times, before)
                        runs[side.name, batch].append(figures)
    return [_row(name, batch, found, runs["SGLang alone", batch])
            for (name, batch), found in runs.items()]  # fmt: skip


def _turns(in_turn: bool, servers: dict[str, LocalServer]) -> list[list[LocalServer]]:
    return [[server] for server in servers.values()] if in_turn else [list(servers.values())]


def _lines(times: Path) -> int:
    return len(times.read_text().splitlines()) if times.exists() else 0


def _phases(times: Path, before: int) -> dict[str, float]:
    """Median milliseconds of each phase of the rounds written since line ``before``.

    The first of them were still held when the run before ended, and are its.
    """
    lines = times.read_text().splitlines()[before + 2 * KEPT :] if times.exists() else []
    rounds = [json.loads(line) for line in lines]
    held = {name: [r[name] for r in rounds if name in r] for name in PHASES}
    return {name: median(values) for name, values in held.items() if values}


def _row(
    name: str, batch: int, runs: list[dict[str, Any]], alone: list[dict[str, Any]]
) -> dict[str, Any]:
    speeds = [run["tokens_per_second"] for run in runs]
    phases: dict[str, float] = {}
    for phase in PHASES:
        values = [run["phases"][phase] for run in runs if phase in run["phases"]]
        if values and name.startswith("LVSPEC"):
            phases[phase] = median(values)
    return {
        "side": name,
        "batch": batch,
        "prompt_tokens": runs[0]["prompt_tokens"],
        "tokens_per_second": median(speeds),
        "lowest": min(speeds),
        "highest": max(speeds),
        "times_alone": median(speeds) / median(run["tokens_per_second"] for run in alone),
        "T": runs[-1]["accepted"],
        "ms_per_round": phases,
    }


def _floors(target_shape: Any, draft_shape: Any, steps: int) -> dict[str, float] | None:
    """Milliseconds to read the weights once for a token alone, and for a round; batch 1, no KV."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if name not in BANDWIDTH:
        return None
    token = target_shape.weight_bytes / BANDWIDTH[name] * 1e3
    return {"token_alone": token,
            "round": token + steps * draft_shape.weight_bytes / BANDWIDTH[name] * 1e3}  # fmt: skip


def _print(record: dict[str, Any]) -> None:
    print(f"{record['hardware']}; acceptance {record['acceptance']}, weights {record['weights']}")
    floors = record["floors_ms"]
    print(f"floors (weights read once): {floors or 'no bandwidth known for this machine'}")
    print(f"{'':16} batch  tokens/s (lowest-highest)  x alone      T  ms a round: {PHASES}")
    for row in sorted(record["rows"], key=lambda row: row["batch"]):
        spread = f"{row['tokens_per_second']:8.1f} ({row['lowest']:.1f}-{row['highest']:.1f})"
        accepted = "     -" if row["T"] is None else f"{row['T']:6.2f}"
        phases = " ".join(f"{row['ms_per_round'].get(phase, 0):.2f}" for phase in PHASES)
        print(f"{row['side']:16} {row['batch']:5}  {spread:26} {row['times_alone']:7.2f} {accepted}"
              f"  {phases if row['ms_per_round'] else '-'}")  # fmt: skip
