"""How much to draft: what choosing it by measured speed costs and saves.

The mini pair's target is served alone, with LVSPEC drafting the same number of tokens every round,
and with LVSPEC choosing how many: once with the pair's own draft, once with that draft's weights
drowned in noise, of which next to nothing is accepted. The three sides run side by side and are
asked in turn, after each has decoded every batch size long enough to have tried every length.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import harmonic_mean, median
from typing import Any

from lvspec_sglang.bench.decoding import decode, held_out, payloads
from lvspec_sglang.miniworld import paths
from lvspec_sglang.record import new_record, write_record
from lvspec_sglang.serving import LocalServer, dtype, together
from lvspec_sglang.tiny import write_perturbed

ALONE = "alone"
SIDES = {ALONE: None, "fixed": {"measure": False}, "chosen": {"measure": True}}
REQUESTS = 4  # of a run at least: one alone is over too soon
NOISE = 3.0  # standard deviations of a weight matrix
ROUNDS = tuple(f'lvspec_rounds_total{{decoding="{way}"}}' for way in ("drafted", "plain"))
DRAFTED = "lvspec_drafted_tokens_total"

Runs = dict[tuple[str, int], list[dict[str, Any]]]


def run(arguments: argparse.Namespace) -> None:
    """Measure both drafts, print the table, write the record."""
    record = new_record("draft-length") | {"repeats": arguments.repeats, "rows": []}
    print(f"{record['hardware']}\n{HEAD}")
    with tempfile.TemporaryDirectory(prefix="lvspec-draft-length-") as name:
        folder = Path(name)
        useless = write_perturbed(paths().draft, folder / "useless", NOISE, arguments.seed)
        requests = max(REQUESTS, *arguments.batches)
        asked = held_out(min(arguments.clips, requests), arguments.seed, folder)
        prompts = payloads(asked, requests, arguments.tokens)
        for draft, checkpoint in (("good", paths().draft), ("useless", useless)):
            runs = _measure(arguments, checkpoint, prompts)
            rows = [{"draft": draft, **_row(runs, *which)} for which in runs]
            print("\n".join(map(_line, rows)))
            record["rows"] += rows
            if arguments.json:
                write_record(arguments.json, record)


def _measure(
    arguments: argparse.Namespace,
    draft: Path,
    prompts: list[dict[str, Any]],
) -> Runs:
    servers = {side: _server(draft, config) for side, config in SIDES.items()}
    runs: Runs = defaultdict(list)
    with together(*servers.values()):
        for number in range(-arguments.warm_up, arguments.repeats):
            for batch in arguments.batches:
                for side, server in servers.items():
                    before = _told(server)
                    figures = _decode(server, prompts, batch)
                    after = _told(server)
                    figures["rounds"] = _gained(before, after, *ROUNDS)
                    figures["drafted"] = _gained(before, after, DRAFTED)
                    figures["believed"] = _believed(after, batch)
                    if number >= 0:
                        runs[side, batch].append(figures)
    return runs


def _decode(server: LocalServer, prompts: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """One run: ``batch`` requests at a time, of small batches several in turn."""
    speeds = [
        decode(server, prompts[start : start + batch])["tokens_per_second"]
        for start in range(0, max(batch, REQUESTS - REQUESTS % batch), batch)
    ]
    return {"tokens_per_second": harmonic_mean(speeds)}


def _server(draft: Path, length: dict[str, Any] | None) -> LocalServer:
    common = (*dtype(), "--random-seed", "1")
    if length is None:
        return LocalServer(paths().target, *common)
    return LocalServer(
        paths().target, *common, "--speculative-algorithm", "LVSPEC",
        "--speculative-draft-model-path", str(draft),
        "--lvspec-config", json.dumps({"preset": "strict", "draft_length": length}),
    )  # fmt: skip


def _told(server: LocalServer) -> dict[str, Any]:
    """What the server tells of LVSPEC; nothing without it."""
    return dict(server.scheduler_state().get("lvspec", {}))


def _gained(before: dict[str, Any], after: dict[str, Any], *names: str) -> float:
    """How far these counters rose, together."""
    return sum(float(after.get(name, 0) - before.get(name, 0)) for name in names)


def _believed(told: dict[str, Any], batch: int) -> dict[str, float] | None:
    """Tokens a second and request of each drafted length, as the server measured them."""
    sizes = told.get("draft_length", {})
    size = str(1 << (batch - 1).bit_length())
    return sizes[size]["tokens_per_second"] if size in sizes else None


def _row(runs: Runs, side: str, batch: int) -> dict[str, Any]:
    """A side's figures; each run is compared with the run alone that it followed."""
    mine, alone = runs[side, batch], runs[ALONE, batch]
    speeds = [run["tokens_per_second"] for run in mine]
    times = [speed / other["tokens_per_second"] for speed, other in zip(speeds, alone, strict=True)]
    rounds, drafted = (sum(run[name] for run in mine) for name in ("rounds", "drafted"))
    return {
        "side": side,
        "batch": batch,
        "tokens_per_second": median(speeds),
        "lowest": min(speeds),
        "highest": max(speeds),
        "times_alone": median(times),
        "times_alone_lowest": min(times),
        "times_alone_highest": max(times),
        "believed": mine[-1]["believed"],
        "drafted": drafted / rounds if rounds else None,
    }


HEAD = f"{'draft':8} {'side':6} batch  {'tokens/s (range)':24} {'x alone (range)':20} drafted"


def _line(row: dict[str, Any]) -> str:
    speed = f"{row['tokens_per_second']:.1f} ({row['lowest']:.1f}-{row['highest']:.1f})"
    low, high = row["times_alone_lowest"], row["times_alone_highest"]
    times = f"{row['times_alone']:.2f} ({low:.2f}-{high:.2f})"
    drafted = "-" if row["drafted"] is None else f"{row['drafted']:.1f}"
    return f"{row['draft']:8} {row['side']:6} {row['batch']:5}  {speed:24} {times:20} {drafted:>7}"
