"""The plot of a fidelity run: fact accuracy kept against drafted tokens accepted a round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lvspec_sglang.bench.rules import served


def need_matplotlib() -> None:
    """Raises ValueError, with the remedy, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "the plot needs matplotlib: pip install 'lvspec-sglang[bench]', or leave --plot out"
        ) from error


def is_curve(members: Sequence[dict[str, Any]]) -> bool:
    """Whether a family's rows differ in what requests ask for alone, not in what servers are."""
    servers = [served(row["relaxation"]) for row in members]
    return all(server == servers[0] for server in servers)


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw a record's rows: a colour a family, 95 % intervals, target and strict marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6), layout="constrained")
    axes = figure.add_subplot()
    rows = [row for row in record["rows"] if row["T"] is not None]
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    for number, (family, members) in enumerate(families.items()):
        members = sorted(members, key=lambda row: row["T"])
        kept = [100 * row["kept"] for row in members]
        low, high = (
            [abs(100 * row["kept_ci95"][side] - 100 * row["kept"]) for row in members]
            for side in (0, 1)
        )
        axes.errorbar(
            [row["T"] for row in members],
            kept,
            yerr=[low, high],
            marker="os^vDPX*"[number // 10 % 8],
            color=f"C{number % 10}",
            linestyle="-" if is_curve(members) else "none",
            markersize=5,
            linewidth=1.3,
            elinewidth=0.8,
            capsize=2,
            label=family,
        )
    axes.axhline(100, color="black", linewidth=0.8, linestyle=":", label="target alone")
    axes.axhline(99.8, color="grey", linewidth=0.8, linestyle="--", label="99.8 %")
    strict = next((row["T"] for row in rows if row["rule"] == "strict"), None)
    if strict is not None:
        axes.axvline(2 * strict, color="grey", linewidth=0.8, linestyle="-.", label="2 x strict T")
    axes.set_xlabel("T: drafted tokens accepted a round, without the bonus token")
    axes.set_ylabel("fact accuracy kept, % of the target's")
    axes.set_title(f"{record['clips']} held-out clips, captions and follow-up questions, 95 % CI")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
