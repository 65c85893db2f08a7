"""The servers of ``lvspec bench prefix``."""

import json
from pathlib import Path
from typing import Any

from lvspec_sglang.serving import LocalServer, dtype


def alone(target: Path) -> LocalServer:
    """A server of ``target`` without speculation."""
    return LocalServer(target, *_common())


def lvspec(target: Path, draft: Path | None, config: dict[str, Any], *more: str) -> LocalServer:
    """A strict server of ``target`` that speculates with ``draft``, or itself."""
    text = json.dumps({"preset": "strict", **config})
    path = () if draft is None else ("--speculative-draft-model-path", str(draft))
    return LocalServer(
        target, *_common(), "--speculative-algorithm", "LVSPEC", *path, "--lvspec-config", text,
        *more,
    )  # fmt: skip


def _common() -> tuple[str, ...]:
    return (*dtype(), "--random-seed", "1", "--enable-metrics")
