"""A local SGLang server as a child process, for the demo, the benches and the tests."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from lvspec_sglang.client import Client

START_TIMEOUT_S = 600.0
START_TIMEOUT_ENV = "LVSPEC_START_TIMEOUT_S"
LOGS_ENV = "LVSPEC_SERVER_LOGS"
METRICS, METRICS_ENV = "--enable-metrics", "PROMETHEUS_MULTIPROC_DIR"
MEMORY, POOL = "--mem-fraction-static", "--max-total-tokens"
SHARED = 0.85  # of a GPU's free memory; the rest is for what servers on it compute
ENDING = (signal.SIGTERM, signal.SIGHUP)


class ServerFailed(RuntimeError):
    """A server ended, or did not get ready in time; carries the end of its log."""


class LocalServer(Client):
    """``python -m sglang.launch_server`` on a free loopback port.

    Use it as a context manager, or call ``start`` and ``stop``.
    """

    def __init__(
        self,
        model: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        """Prepare a server of ``model``; ``LVSPEC_SERVER_LOGS`` names a folder that keeps its log.

        Args:
            arguments: further ones of its command line.
            env: added to its environment.
            timeout_s: how long it may take to start, downloads and kernels compiled at first use
                included; ``LVSPEC_START_TIMEOUT_S`` in the environment overrides it.
        """
        self.port = _free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.command = [
            sys.executable, "-m", "sglang.launch_server", "--model-path", str(model),
            "--host", "127.0.0.1", "--port", str(self.port), "--enable-multimodal",
            "--skip-server-warmup", *arguments,
        ]  # fmt: skip
        self.env = {**os.environ, **(env or {})}
        self.timeout_s = float(os.environ.get(START_TIMEOUT_ENV, timeout_s))
        self.process: subprocess.Popen[bytes] | None = None
        self.keep_log = os.environ.get(LOGS_ENV) or None
        self.log: Path | None = None  # from start() on
        self._metrics: str | None = None

    def start(self) -> None:
        """Start the process without waiting for it; it does not outlive the calling thread."""
        if self.keep_log is not None:
            Path(self.keep_log).mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".log", "lvspec-server-", self.keep_log)
        self.log, env = Path(name), self.env
        if METRICS in self.command:
            # The host deletes a folder of its own making only where it is ended gently.
            self._metrics = tempfile.mkdtemp(prefix="lvspec-metrics-")
            env = {**env, METRICS_ENV: self._metrics}
        with open(descriptor, "wb") as log:
            self.process = subprocess.Popen(
                bound(self.command), env=env, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(self, progress: Callable[[float], None] = lambda seconds: None) -> None:
        """Wait until the server answers; ``progress`` is told the seconds waited.

        Raises:
            ServerFailed: the process ended or its time to start ran out.
        """
        assert self.process is not None, "start() first"
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            if self.process.poll() is not None:
                raise ServerFailed(f"the server ended early:\n{self.log_tail()}")
            if waited > self.timeout_s:
                raise ServerFailed(
                    f"no answer after {self.timeout_s:.0f} s; set {START_TIMEOUT_ENV} to wait "
                    f"longer:\n{self.log_tail()}"
                )
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
        if self._metrics is not None:
            shutil.rmtree(self._metrics, ignore_errors=True)
        if self.log is not None and self.keep_log is None:
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
        assert self.log is not None, "start() first"
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
def exit_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP exceptions, so that a command that is ended ends its servers first.

    They live in sessions of their own, which what ends the command does not reach. A signal that
    is ignored already, as under nohup, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    heard = [number for number in ENDING if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


@contextlib.contextmanager
def together(
    *servers: LocalServer, wait: Callable[[LocalServer], None] = LocalServer.wait_ready
) -> Iterator[None]:
    """Start ``servers``, ``wait`` until all answer, and stop them in the end.

    As many start at once as there are cores: more would starve each other until the host gives
    one up. On a GPU one starts when the one before it is ready, with its share of the memory that
    is free then, unless all are told how many tokens of KV to hold.
    """
    with contextlib.ExitStack() as stack:
        at_once = os.cpu_count() or 1
        if _on_gpu():
            share_memory(servers)
            if not all(POOL in server.command for server in servers):
                at_once = 1
        for first in range(0, len(servers), at_once):
            group = servers[first : first + at_once]
            for server in group:
                stack.callback(server.stop)
                server.start()
            for server in group:
                wait(server)
        yield


def share_memory(servers: Sequence[LocalServer]) -> None:
    """Let servers that start one after the other on a GPU all fit.

    The host counts ``--mem-fraction-static`` of the memory that is free when a server starts: the
    i-th of n, from 0, gets one part in n - i. A fraction that was given is kept, and one server
    alone keeps the host's own.
    """
    if len(servers) < 2:
        return
    for place, server in enumerate(servers):
        if not any(argument.startswith(MEMORY) for argument in server.command):
            server.command += [MEMORY, f"{SHARED / (len(servers) - place):.3f}"]


def bound(command: Sequence[str]) -> list[str]:
    """``command`` as a child that ends with this process, however that is ended."""
    script = Path(__file__).with_name("bound.py")
    # Isolated: the script's folder has modules named as the standard library's.
    return [sys.executable, "-I", "-S", str(script), str(os.getpid()), *command]


def dtype() -> tuple[str, str]:
    """What small checkpoints are served in: a GPU's attention kernels do not take float32."""
    return "--dtype", "bfloat16" if _on_gpu() else "float32"


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _free_port() -> int:
    """One that nobody takes before the server does: the host's own are from 22000 on, and outgoing
    connections have theirs from 32768 on."""
    while True:
        port = random.randrange(11000, 21000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
