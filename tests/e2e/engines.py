"""Runs ``engine_program.py``, or the program that puts it on the path of a GPU, in a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ON_CPU, ON_GPU_PATH = "tests.e2e.engine_program", "tests.e2e.gpu_program"
GRAPHS = (1, 4)  # the batch sizes that have one on the path of a GPU


def generate(
    program: str,
    checkpoints: dict[str, Path],
    calls: list[list[dict[str, Any]]],
    config: dict[str, Any],
    options: dict[str, Any] | None = None,
    **env: str,
) -> list[dict[str, Any]]:
    """The answers to ``calls``, one after the other; ``options`` are the engine's."""
    done = subprocess.run(
        [
            sys.executable, "-m", program, str(checkpoints["target"]), str(checkpoints["near"]),
            json.dumps(calls), json.dumps(options or {}),
        ],
        capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[2],
        env={**os.environ, "LVSPEC_CONFIG": json.dumps(config), **env},
    )  # fmt: skip
    printed = [line for line in done.stdout.splitlines() if line.startswith('{"overlapping"')]
    assert printed, done.stderr[-3000:]
    result = json.loads(printed[0])
    assert result["overlapping"]
    answers: list[dict[str, Any]] = result["answers"]
    return answers
