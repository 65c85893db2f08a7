"""A synthetic video world with known truth, and a small target / draft pair trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """Directories of the two checkpoints."""

    target: Path
    draft: Path


def paths() -> Pair:
    """Directories of the trained target and draft that come with the package.

    Raises FileNotFoundError, with the remedy, where the package was installed without them.
    """
    root = Path(__file__).parent / "checkpoints"
    pair = Pair(root / "target", root / "draft")
    for directory in pair:
        if not (directory / "model.safetensors").exists():
            raise FileNotFoundError(
                f"no checkpoint in {directory}: reinstall lvspec-sglang from its wheel, or train"
                f" the pair with `lvspec miniworld train --out {root} --run state`"
            )
    return pair
