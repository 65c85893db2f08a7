"""The printed table of a fidelity run."""

from collections.abc import Iterator, Sequence
from typing import Any

from lvspec_sglang.bench.tally import PARTS


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Percent; ``~`` where a difference to the target is within the noise."""
    wide = max((len(row["rule"]) for row in rows), default=4)
    yield (
        f"{'rule':{wide}}      T  /strict  accuracy    kept  (95 % CI)           "
        f"{'  '.join(f'{part:>9}' for part in PARTS)}  over random at T    ran on"
    )
    for row in rows:
        low, high = row["kept_ci95"]
        noise = "~" if row["kept_within_noise"] else " "
        length = f"{'-':>7}  {'-':>7}"
        if row["T"] is not None:
            length = f"{row['T']:7.2f}  {row['T_to_strict']:6.2f}x"
        parts = "  ".join(f"{_percent(row, part):>9}" for part in PARTS)
        over = row.get("over_random")
        margin = "" if over is None else f"{100 * over['kept']:+.2f} {over['verdict']}"
        yield (
            f"{row['rule']:{wide}}{length}  {100 * row['accuracy']:7.2f}%  "
            f"{100 * row['kept']:6.2f}%{noise}({100 * low:6.2f}, {100 * high:6.2f})  "
            f"{parts}  {margin:18}  {row['ran_on']:4}"
        )


def _percent(row: dict[str, Any], part: str) -> str:
    if part not in row:
        return "-"
    bounds = row[part]["minus_alone_ci95"]
    noise = "~" if bounds is None or bounds[0] <= 0 <= bounds[1] else " "
    return f"{100 * row[part]['accuracy']:.2f}%{noise}"
