"""Which server ``lvspec chat`` and ``lvspec report`` talk to, by their arguments."""

import argparse
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from lvspec_sglang import connect
from lvspec_sglang.miniworld import paths
from lvspec_sglang.serving import LocalServer


class Unstarted(LocalServer):
    """A server that only holds its command."""

    def start(self) -> None:
        pass

    def wait_ready(self, progress: object = None) -> None:
        pass


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    connect.add_arguments(parser)
    return parser.parse_args(words)


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The command line of the server that would be started."""
    monkeypatch.setattr(connect, "LocalServer", Unstarted)
    with connect.connect(parsed(*words)) as server:
        return " ".join(server.command)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("on_gpu", "dtype"), [(False, "float32"), (True, "bfloat16")])
def test_the_mini_pair_is_served_in_what_the_device_takes(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    line = command(monkeypatch)
    assert f"--model-path {paths().target} " in line and f"--dtype {dtype} " in line
    assert line.endswith(f"--speculative-draft-model-path {paths().draft}")


def test_a_model_without_a_draft_drafts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = command(monkeypatch, "--model", "a")
    assert alone.endswith("--speculative-algorithm LVSPEC") and "--model-path a " in alone
    both = command(monkeypatch, "--model", "a", "--draft", "b")
    assert both.endswith("--speculative-algorithm LVSPEC --speculative-draft-model-path b")
    with pytest.raises(ValueError, match="--draft needs the --model it drafts for"):
        command(monkeypatch, "--draft", "b")
    with pytest.raises(FileNotFoundError, match="no folder /no/such"):
        command(monkeypatch, "--model", "a", "--draft", "/no/such")


@pytest.mark.parametrize(
    ("watched", "shown"),
    [
        (False, "x: starting\nx: ready\n"),
        (True, "\rx: starting            \rx: starting, 7 s       \rx: ready               \n"),
    ],
)
def test_only_a_terminal_is_shown_the_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], watched: bool, shown: str
) -> None:
    class Slow(Unstarted):
        def wait_ready(self, progress: Callable[[float], None]) -> None:
            progress(7.0)

    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched, raising=False)
    connect.wait_ready("x", Slow(Path("a")))
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_an_answer_has_a_token_at_least(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--max-new-tokens", limit)
    assert f"'{limit}': a number above 0" in capsys.readouterr().err


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def test_an_address_needs_no_scheme() -> None:
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"localhost:{server.server_port}"
    for given in (address, f"http://{address}/", f"http://{address}/v1"):
        with connect.connect(parsed("--url", given)) as client:
            assert client.url == f"http://{address}"
            part = client.video_part(Path("/clip.mp4"))
            assert part["video_url"]["url"] == "/clip.mp4"
    server.shutdown()
    server.server_close()
    with (
        pytest.raises(ConnectionError, match=f"no server answers at http://{address}"),
        connect.connect(parsed("--url", address)),
    ):
        pass
