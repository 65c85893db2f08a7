"""What a server says reaches the caller: refusals, errors in a stream; how a video is sent."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lvspec_sglang.client import Client, Refused

ANSWERS = {
    "/detokenize": (400, {"message": "no such token", "code": 400}),
    "/server_info": (500, {"error": {"message": "out of order"}}),
    "/v1/chat/completions": (404, "not here"),
    "/generate": (200, 'data: {"text": "a"}\n\ndata: {"error": {"message": "KV is full"}}\n\n'),
}


class Handler(BaseHTTPRequestHandler):
    """Answers as ``ANSWERS`` says."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

    do_GET = do_POST

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Client(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()


def test_a_refusal_carries_the_servers_message(client: Client) -> None:
    with pytest.raises(Refused, match=r"HTTP 400\): no such token"):
        client.detokenize([[-1]])
    with pytest.raises(Refused, match=r"HTTP 500\): out of order"):
        client.info()
    with pytest.raises(Refused, match=r"HTTP 404\): not here"):
        client.chat([])


def test_a_refused_generate_says_why(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "/generate", (400, {"error": {"message": "no such preset"}}))
    with pytest.raises(Refused, match=r"HTTP 400\): no such preset"):
        client.generate(text="a")


def test_an_error_in_a_stream_ends_it(client: Client) -> None:
    events = client.stream(text="a")
    assert next(events) == {"text": "a"}
    with pytest.raises(Refused, match="gave up: KV is full"):
        next(events)


def test_a_video_goes_as_a_path_here_and_as_bytes_elsewhere(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"frames")
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        assert Client(url).video_part(video)["video_url"]["url"] == str(video)
    sent = Client("http://elsewhere:1").video_part(video)["video_url"]["url"]
    assert base64.b64decode(sent.removeprefix("data:video/mp4;base64,")) == b"frames"
