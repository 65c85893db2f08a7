"""The table of a speed run: a row a side and batch size, beside what the hardware allows."""

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

import torch

from lvspec_sglang.bench.timed_server import PHASES, judging_share, medians

BANDWIDTH = {"NVIDIA H200": 4.8e12, "NVIDIA H100 80GB HBM3": 3.35e12}  # bytes a second
ALONE, STRICT = "SGLang alone", "LVSPEC strict"


class Side(NamedTuple):
    """One way to decode: which server, and what its requests ask for."""

    name: str
    server: str
    preset: str | None


def rows_of(
    compared: list[Side], batches: list[int], runs: dict[tuple[str, int], list[dict[str, Any]]],
    left_out: dict[tuple[str, int], str], baseline: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each side at each batch size that was measured or, with the reason, left out.

    Args:
        baseline: rows of the target alone, of another run, in place of its own.
    """
    rows = []
    for batch in batches:
        saved = [row for row in baseline if row["batch"] == batch]
        rows += saved
        alone = [run["tokens_per_second"] for run in saved or runs.get((ALONE, batch), [])]
        strict = runs.get((STRICT, batch))
        phases = _medians(strict) if strict else {}
        for side in compared:
            about: dict[str, Any] = {"side": side.name, "batch": batch}
            if (side.name, batch) in left_out:
                rows.append(about | {"left_out": left_out[side.name, batch]})
            elif runs.get((side.name, batch)):
                rows.append(about | _figures(side, runs[side.name, batch], alone, phases))
    return rows


def _figures(
    side: Side, runs: list[dict[str, Any]], alone: list[float], strict: dict[str, float]
) -> dict[str, Any]:
    """A side's figures at a batch size.

    Args:
        alone: tokens a second of the target alone, of each run; none where it was not measured.
        strict: milliseconds of a strict round's phases.
    """
    speeds = [run["tokens_per_second"] for run in runs]
    phases = _medians(runs) if side.server == "LVSPEC" else {}
    speed = median(speeds)
    accepted = [run["accepted"] for run in runs if run["accepted"] is not None]
    return {
        "prompt_tokens": runs[0]["prompt_tokens"],
        "seconds": median(run["seconds"] for run in runs),
        "tokens_per_second": speed,
        "lowest": min(speeds),
        "highest": max(speeds),
        "times_alone": speed / median(alone) if alone else None,
        "T": median(accepted) if accepted else None,
        "ms_per_round": phases,
        "judging_share": judging_share(strict, phases),
        **{name: idle for name, idle in runs[-1].items() if name.startswith("device_idle")},
    }


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    return medians([run["phases"] for run in runs])


def floors_of(target_shape: Any, draft_shape: Any, steps: int) -> dict[str, float] | None:
    """Milliseconds to read the weights once for a token alone, and for a round; batch 1, no KV."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if name not in BANDWIDTH:
        return None
    token = target_shape.weight_bytes / BANDWIDTH[name] * 1e3
    return {"token_alone": token,
            "round": token + steps * draft_shape.weight_bytes / BANDWIDTH[name] * 1e3}  # fmt: skip


def show(record: dict[str, Any]) -> None:
    """Print a record."""
    print(f"{record['hardware']}; acceptance {record['acceptance']}, weights {record['weights']}")
    floors = record["floors_ms"]
    print(f"floors (weights read once): {floors or 'no bandwidth known for this machine'}")
    print(f"tokens of KV: {record['max_total_num_tokens']}; counted: {record['counted']}")
    print(f"{'':16} batch  tokens/s (lowest-highest)  x alone      T judging  idle"
          f"  ms a round: {PHASES}")  # fmt: skip
    for row in record["rows"]:
        head = f"{row['side']:16} {row['batch']:5}  "
        print(head + (f"left out: {row['left_out']}" if "left_out" in row else _line(row)))


def _line(row: dict[str, Any]) -> str:
    spread = f"{row['tokens_per_second']:8.1f} ({row['lowest']:.1f}-{row['highest']:.1f})"
    times, accepted, share, idle = (
        f"{row[name]:.3g}" if isinstance(row.get(name), float) else "-"
        for name in ("times_alone", "T", "judging_share", "device_idle")
    )
    phases = " ".join(f"{row['ms_per_round'].get(phase, 0):.2f}" for phase in PHASES)
    return (f"{spread:26} {times:>7} {accepted:>6} {share:>7} {idle:>5}"
            f"  {phases if row['ms_per_round'] else '-'}")  # fmt: skip
