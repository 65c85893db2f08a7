"""A local SGLang server as a child process, for the demo, the benches and the tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from lvspec_sglang.client import Client

START_TIMEOUT_S = 600.0


class ServerFailed(RuntimeError):
    """A server ended, or did not get ready in time; carries the end of its log."""


class LocalServer(Client):
    """``python -m sglang.launch_server`` on a free loopback port.

    Use it as a context manager, or call ``start`` and ``stop``.
    """

    def __init__(self, model: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        """Prepare a server of ``model`` with further command-line ``arguments``."""
        self.port = _free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.command = [
            sys.executable, "-m", "sglang.launch_server", "--model-path", str(model),
            "--host", "127.0.0.1", "--port", str(self.port), "--enable-multimodal",
            "--skip-server-warmup", *arguments,
        ]  # fmt: skip
        self.env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = Path(tempfile.mkstemp(prefix="lvspec-server-", suffix=".log")[1])

    def start(self) -> None:
        """Start the process without waiting for it."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(
        self,
        timeout_s: float = START_TIMEOUT_S,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Wait until the server answers; ``progress`` is told the seconds waited.

        Raises:
            ServerFailed: the process ended or ``timeout_s`` ran out.
        """
        assert self.process is not None, "start() first"
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            if self.process.poll() is not None:
                raise ServerFailed(f"the server ended early:\n{self.log_tail()}")
            if waited > timeout_s:
                raise ServerFailed(f"no answer after {timeout_s:.0f} s:\n{self.log_tail()}")
            try:
                if requests.get(f"{self.url}/health", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            progress(waited)
            time.sleep(1.0)

    def stop(self) -> None:
        """End the server and every process it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        self.log.unlink(missing_ok=True)

    def __enter__(self) -> "LocalServer":
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def log_tail(self, lines: int = 25) -> str:
        """The last ``lines`` lines of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def scheduler_state(self) -> dict[str, Any]:
        """The first scheduler's ``internal_states`` of ``/server_info``."""
        state: dict[str, Any] = self.info()["internal_states"][0]
        return state

    def counters(self) -> dict[str, float]:
        """LVSPEC's own Prometheus counters, summed over labels; needs ``--enable-metrics``."""
        counted: dict[str, float] = {}
        for line in self.get("/metrics").text.splitlines():
            if line.startswith("lvspec_"):
                name, value = line.split("{")[0].split(" ")[0], float(line.rsplit(" ", 1)[1])
                counted[name] = counted.get(name, 0.0) + value
        return counted


@contextlib.contextmanager
def together(*servers: LocalServer) -> Iterator[None]:
    """Start ``servers`` at once, wait until all answer, and stop them in the end."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait_ready()
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
