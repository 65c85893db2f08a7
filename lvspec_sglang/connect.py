"""The server a command talks to: a running one, or one it starts."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import requests

from lvspec_sglang.arguments import positive
from lvspec_sglang.client import Client, Refused
from lvspec_sglang.serving import LocalServer, ServerFailed, dtype

ERRORS = (ValueError, OSError, Refused, ServerFailed)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--url``, ``--model``, ``--draft`` and ``--max-new-tokens``."""
    parser.add_argument("--url", help="a running server, for example http://127.0.0.1:30000")
    parser.add_argument("--model", help="start a server of this target (default: the mini pair)")
    parser.add_argument("--draft", help="the draft of --model (default: --model itself)")
    parser.add_argument(
        "--max-new-tokens", type=positive, default=512, help="an answer's limit (512)"
    )


@contextlib.contextmanager
def connect(arguments: argparse.Namespace) -> Iterator[Client]:
    """The server of ``arguments``, ready; one that was started here ends here.

    Raises:
        ValueError: ``--url`` beside ``--model``, or ``--draft`` without it.
        FileNotFoundError: no folder where a path was given for one of these.
        ConnectionError: nobody answers at ``--url``.
        ServerFailed: the started server ended early.
    """
    url, model, draft = arguments.url, arguments.model, arguments.draft
    if url is not None and (model or draft):
        raise ValueError("--url names a running server: leave --model and --draft out")
    if draft and not model:
        raise ValueError("--draft needs the --model it drafts for; without both: the mini pair")
    for given in (model, draft):
        if given and given.startswith(("/", ".", "~")) and not Path(given).is_dir():
            raise FileNotFoundError(f"no folder {given}")
    if url is None:
        with _start(model, draft) as server:
            yield server
        return
    # The openai client's base_url ends in /v1; what is asked here stands beside it.
    client = Client((url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1"))
    try:
        client.get("/health", timeout_s=10).raise_for_status()
    except requests.RequestException as error:
        raise ConnectionError(
            f"no server answers at {client.url} ({type(error).__name__}); "
            "start one, or leave --url out"
        ) from error
    yield client


@contextlib.contextmanager
def _start(model: str | None, draft: str | None) -> Iterator[LocalServer]:
    more: tuple[str, ...] = ("--speculative-algorithm", "LVSPEC")
    if not model:
        from lvspec_sglang.miniworld import paths

        model, draft = map(str, paths())
        more += (*dtype(), "--random-seed", "1")
    if draft:
        more += ("--speculative-draft-model-path", draft)
    server = LocalServer(Path(model), *more)
    try:
        server.start()
        wait_ready("server", server)
        yield server
    finally:
        server.stop()


def wait_ready(name: str, server: LocalServer) -> None:
    """Wait until ``server`` answers; on stderr, where a terminal also shows for how long.

    Raises:
        ServerFailed: as ``LocalServer.wait_ready``.
    """
    watched = sys.stderr.isatty()

    def say(text: str, last: bool = False) -> None:
        line = f"\r{name}: {text:<20}" if watched else f"{name}: {text}"
        end = "" if watched and not last else "\n"
        print(line, end=end, file=sys.stderr, flush=True)

    say("starting")
    server.wait_ready(lambda waited: say(f"starting, {waited:.0f} s") if watched else None)
    say("ready", last=True)
