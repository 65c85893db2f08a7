"""The servers of ``lvspec bench prefix``."""

import json
from pathlib import Path
from typing import Any

from lvspec_sglang.serving import LocalServer, dtype

COMMON = (*dtype(), "--random-seed", "1", "--enable-metrics")


def lvspec(target: Path, draft: Path | None, config: dict[str, Any], *more: str) -> LocalServer:
    """A strict server of ``target`` that speculates with ``draft``, or itself."""
    text = json.dumps({"preset": "strict", **config})
    path = () if draft is None else ("--speculative-draft-model-path", str(draft))
    return LocalServer(
        target, *COMMON, "--speculative-algorithm", "LVSPEC", *path, "--lvspec-config", text,
        *more,
    )  # fmt: skip
