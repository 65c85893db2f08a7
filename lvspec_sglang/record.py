"""The dated record of a measurement: what ran, on what, and the figures."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lvspec_sglang.host import HOST_VERSION

PACKAGES = ("torch", "transformers", "triton")
KERNELS = ("sglang-kernel", "flashinfer-python")


def new_record(bench: str) -> dict[str, Any]:
    """A record of ``bench`` without figures: date, commit, versions, hardware, argv."""
    return {
        "bench": bench,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {
            "lvspec-sglang": version("lvspec-sglang"),
            "sglang": HOST_VERSION,
            **{name: version(name) for name in PACKAGES},
            **{name: _installed(name) for name in KERNELS},
            "python": platform.python_version(),
        },
        "hardware": _hardware(),
        "argv": sys.argv[1:],
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write ``record`` as JSON, wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(record, indent=1) + "\n")
    half.replace(path)


def commit() -> str | None:
    """The checkout's commit, ``+`` where it has changes; None where git does not say."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        return {"accelerator": torch.cuda.get_device_name(), "cpu": _cpu_name()}
    return {"accelerator": None, "cpu": _cpu_name(), "cores": os.cpu_count()}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
