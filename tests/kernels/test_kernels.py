import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(program: str, *args: str, interpret: bool, cache: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    env |= {"PYTHONPATH": os.pathsep.join(paths), "TRITON_CACHE_DIR": str(cache)}
    env |= {"TRITON_INTERPRET": "1"} if interpret else {}
    command = [sys.executable, "-m", f"tests.kernels.{program}", *args]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def test_verdicts_equal_the_reference(device: str, tmp_path: Path) -> None:
    run("verify_program", device, interpret=device == "cpu", cache=tmp_path)


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def test_comparisons_equal_the_reference(device: str, tmp_path: Path) -> None:
    run("compare_program", device, interpret=device == "cpu", cache=tmp_path)


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def test_masses_equal_the_reference(device: str, tmp_path: Path) -> None:
    run("mass_program", device, interpret=device == "cpu", cache=tmp_path)


def test_kernels_compile_for_hopper(tmp_path: Path) -> None:
    run("compile_program", interpret=False, cache=tmp_path)
