"""A running SGLang server, spoken to over HTTP."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Refused(RuntimeError):
    """The server answered with an error; carries its status and its message."""


class Client:
    """The server at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def post(self, path: str, payload: dict[str, Any], timeout_s: float = 600) -> requests.Response:
        """POST JSON to ``path``."""
        return requests.post(f"{self.url}{path}", json=payload, timeout=timeout_s)

    def get(self, path: str, timeout_s: float = 60) -> requests.Response:
        """GET ``path``."""
        return requests.get(f"{self.url}{path}", timeout=timeout_s)

    def generate(self, **payload: Any) -> Any:
        """One call of ``/generate``.

        Raises:
            Refused: the server refused the request.
        """
        response = self.post("/generate", payload)
        _check(response)
        return response.json()

    def stream(self, **payload: Any) -> Iterator[dict[str, Any]]:
        """Stream ``/generate``: one decoded event an increment.

        Raises:
            Refused: the server refused the request.
        """
        return self._events("/generate", payload)

    def stream_chat(self, messages: list[dict[str, Any]], **more: Any) -> Iterator[dict[str, Any]]:
        """Stream ``/v1/chat/completions``: one decoded chunk an increment.

        Raises:
            Refused: the server refused the request.
        """
        return self._events("/v1/chat/completions", {**_chat(messages), **more})

    def chat(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The one choice of a ``/v1/chat/completions`` call.

        Raises:
            Refused: the server refused the request.
        """
        response = self.post("/v1/chat/completions", {**_chat(messages), **more})
        _check(response)
        choice: dict[str, Any] = response.json()["choices"][0]
        return choice

    def detokenize(self, tokens: list[list[int]]) -> list[str]:
        """The texts of token lists, special tokens included.

        Raises:
            Refused: the server refused the request.
        """
        response = self.post("/detokenize", {"tokens": tokens, "skip_special_tokens": False})
        _check(response)
        texts: list[str] = response.json()["text"]
        return texts

    def info(self) -> dict[str, Any]:
        """``/server_info``.

        Raises:
            Refused: the server refused the request.
        """
        response = self.get("/server_info")
        _check(response)
        info: dict[str, Any] = response.json()
        return info

    def video_part(self, video: Path) -> dict[str, Any]:
        """A chat message's part with ``video``: its path here, its bytes for another machine."""
        url = str(video.resolve())
        if urlsplit(self.url).hostname not in LOOPBACK:
            url = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
        return {"type": "video_url", "video_url": {"url": url}}

    def _events(self, path: str, payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with requests.post(
            f"{self.url}{path}", json={**payload, "stream": True}, stream=True, timeout=600
        ) as response:
            _check(response)
            for line in response.iter_lines():
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise Refused(f"the server gave up: {event['error']['message']}")
                    yield event


def _chat(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": "default", "messages": messages, "temperature": 0}


def _check(response: requests.Response) -> None:
    if response.ok:
        return
    try:
        body = response.json()
        said = body.get("message") or body["error"]["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        said = response.text[:500]
    raise Refused(f"the server refused the request (HTTP {response.status_code}): {said}")
