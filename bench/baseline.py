"""Rows of the target alone from a saved speed record, for another run with the same target."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lvspec_sglang.bench.speed_table import ALONE

# What the speed of the target alone depends on.
MATTERS = ("target", "tokens", "video_tokens", "clips", "seed", "server_args")


def asked_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that a record keeps for later runs to be compared with."""
    return {name: getattr(arguments, name) for name in MATTERS}


def read_baseline(
    path: Path, record: dict[str, Any], batches: Sequence[int]
) -> list[dict[str, Any]]:
    """The rows of the target alone at ``batches`` in the record at ``path``.

    Args:
        record: the run they are for, its ``asked`` among what it says.

    Raises:
        ValueError: no speed record, or one of another machine, other versions or arguments, or
            without one of the batch sizes.
    """
    try:
        saved = json.loads(path.read_text())
        told = {**saved["hardware"], **saved["versions"], **saved["asked"]}
        rows = [
            row
            for row in saved["rows"]
            if row["side"] == ALONE and row["batch"] in batches and "left_out" not in row
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--baseline {path}: no record of bench speed ({error!r})") from error
    now = {**record["hardware"], **record["versions"], **record["asked"]}
    machine = "accelerator" if now["accelerator"] else "cpu"
    for name in (machine, "sglang", "torch", *MATTERS):
        if told.get(name) != now[name]:
            raise ValueError(
                f"--baseline {path}: {name} was {told.get(name)!r} there and is {now[name]!r} "
                "here; leave --baseline out to measure the target alone again"
            )
    missing = set(batches) - {row["batch"] for row in rows}
    if missing:
        raise ValueError(
            f"--baseline {path}: the target alone was not measured at batch {min(missing)}; leave "
            "--baseline out, or ask for other --batches"
        )
    return rows
