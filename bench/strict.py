"""What the parts of ``lvspec bench prefix`` serve and ask about."""

import json
from pathlib import Path
from typing import Any

from lvspec_sglang.miniworld.clips import write_clip
from lvspec_sglang.miniworld.scene import HELD_OUT
from lvspec_sglang.serving import LocalServer

COMMON = ("--dtype", "float32", "--random-seed", "1", "--enable-metrics")


def lvspec(target: Path, draft: Path | None, config: dict[str, Any], *more: str) -> LocalServer:
    """A strict server of ``target`` that speculates with ``draft``, or itself."""
    text = json.dumps({"preset": "strict", **config})
    path = () if draft is None else ("--speculative-draft-model-path", str(draft))
    return LocalServer(
        target, *COMMON, "--speculative-algorithm", "LVSPEC", *path, "--lvspec-config", text,
        *more,
    )  # fmt: skip


def scenes(clips: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Held-out clips of the mini world: the truth of each, with its ``path``."""
    truths = [write_clip(HELD_OUT + number, folder) for number in range(seed, seed + clips)]
    return [truth | {"path": folder / truth["video"]} for truth in truths]
