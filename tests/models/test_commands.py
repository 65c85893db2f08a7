"""The ``lvspec`` command as a user types it."""

import subprocess
import sys


def lvspec(*arguments: str) -> str:
    """Run the command and return what it printed; a process of its own, as it loads plugins."""
    command = [sys.executable, "-m", "lvspec_sglang.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_doctor_finds_nothing_missing() -> None:
    printed = lvspec("doctor")
    assert "LVSPEC can run here." in printed
    assert "video decoder:" in printed
    assert "assign_req_to_token_pool_func: active" in printed


def test_demo_shows_both_servers_and_their_figures() -> None:
    printed = lvspec("demo", "--max-new-tokens", "48")
    assert "Strict answers and the target's own are identical." in printed
    for way in ("target alone", "LVSPEC strict", "LVSPEC balanced"):
        lines = [line for line in printed.splitlines() if line.startswith(way + " ")]
        assert len(lines) == 3, f"two turns and a summary of {way}"
        assert "tokens/s" in lines[-1]
