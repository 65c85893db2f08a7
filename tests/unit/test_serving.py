"""A server as a child process: what it leaves behind, and what ends it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvspec_sglang.serving import LOGS_ENV, METRICS_ENV, LocalServer, bound, exit_on_signals


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of what was left among the temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv(LOGS_ENV, raising=False)
    return lambda: sorted(path.name for path in folder.iterdir())


def ran(server: LocalServer, script: str, *more: str) -> None:
    """Run ``script`` in the server's place, to its end."""
    server.command = ["sh", "-c", script, "sh", *more]
    server.start()
    assert server.process is not None
    server.process.wait()


def test_a_server_leaves_nothing_behind(left: Callable[[], list[str]]) -> None:
    server = LocalServer(Path("model"))
    server.stop()
    assert left() == []
    opened = os.listdir("/proc/self/fd")
    ran(server, "echo hello")
    assert server.log_tail() == "hello"
    assert os.listdir("/proc/self/fd") == opened
    server.stop()
    assert left() == []


def test_logs_are_kept_in_a_folder_that_is_made(
    left: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOGS_ENV, str(tmp_path / "new" / "logs"))
    LocalServer(Path("never started")).stop()
    server = LocalServer(Path("model"))
    ran(server, "echo hello")
    server.stop()
    assert [path.read_text() for path in (tmp_path / "new" / "logs").iterdir()] == ["hello\n"]
    assert left() == []


def test_a_servers_metrics_go_with_it(
    left: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(METRICS_ENV, "/no/such/folder")
    server = LocalServer(Path("model"))
    script = f"echo 1 > ${METRICS_ENV}/counter_1.db; echo ${METRICS_ENV}"
    ran(server, script, "--enable-metrics")
    folder = Path(server.log_tail())
    assert (folder / "counter_1.db").read_text() == "1\n"
    server.stop()
    assert left() == []
    ran(server, f"echo ${METRICS_ENV}")
    assert server.log_tail() == "/no/such/folder"
    server.stop()


COMMAND = """
import signal
from pathlib import Path
from lvspec_sglang.serving import LocalServer, exit_on_signals
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
server = LocalServer(Path("model"))
server.command = ["sleep", "600"]
server.wait_ready = lambda: print(server.process.pid, flush=True)
with exit_on_signals(), server:
    server.process.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_ends_its_server(number: signal.Signals) -> None:
    command = subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    server = int(command.stdout.readline())
    os.kill(server, 0)
    command.send_signal(number)
    assert command.wait(30) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children so")


@linux
def test_a_command_that_is_killed_takes_its_server_along() -> None:
    command = subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    status = Path("/proc", command.stdout.readline().strip(), "status")
    assert "(running" in status.read_text() or "(sleeping" in status.read_text()
    command.kill()
    command.wait(30)
    end = time.monotonic() + 30
    while status.exists() and "(zombie)" not in status.read_text():
        assert time.monotonic() < end, status.read_text()
        time.sleep(0.05)


@linux
def test_a_command_without_its_parent_is_not_run() -> None:
    command = bound(["echo", "hello"])
    command[command.index(str(os.getpid()))] = str(os.getppid())
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "had ended before echo was run" in done.stderr
    assert (
        subprocess.run(bound(["echo", "hello"]), capture_output=True, text=True).stdout == "hello\n"
    )


def test_signals_are_as_before_in_the_end_and_an_ignored_one_stays_ignored() -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with pytest.raises(SystemExit, match="143"), exit_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert signal.getsignal(signal.SIGTERM) is kept[signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
