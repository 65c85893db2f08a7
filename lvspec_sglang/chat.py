"""``lvspec chat``: a conversation about a video, in the terminal."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from lvspec_sglang.client import Client, Refused
from lvspec_sglang.config import PRESETS, RelaxConfig
from lvspec_sglang.config_json import parse_request
from lvspec_sglang.connect import ERRORS, add_arguments, connect

HELP = f"""\
  /video FILE    talk about another clip; the conversation starts afresh
  /preset NAME   from the next turn on: {", ".join(PRESETS)}
  /strict        the target's own answers, token for token: /preset strict
  /help          this list
  /quit          end (so does Ctrl-D)
Anything else is a question about the video."""


class Conversation:
    """The turns so far about one video, and how far answers are relaxed."""

    def __init__(self, client: Client, video: Path, preset: str | None, max_tokens: int) -> None:
        """Prepare to ask; ``preset`` None leaves the choice to the server.

        Raises:
            FileNotFoundError: there is no file ``video``.
            ValueError: an unknown preset; names the known ones.
        """
        self.client = client
        self.max_tokens = max_tokens
        self.preset: str | None = None
        self.show(video)
        if preset is not None:
            self.relax(preset)

    def show(self, video: Path) -> None:
        """Turn to another video and forget what was said; raises as the constructor."""
        if not video.is_file():
            raise FileNotFoundError(f"no file {video}")
        self.video = video
        self.messages: list[dict[str, Any]] = []

    def relax(self, preset: str) -> None:
        """Take another preset from the next turn on; raises as the constructor."""
        parse_request({"preset": preset}, RelaxConfig())
        self.preset = preset

    def ask(self, question: str) -> Iterator[str]:
        """Stream the answer in pieces, and at the end a line of its figures.

        Raises:
            Refused, OSError: the server refused or did not answer; the turn is forgotten.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if not self.messages:
            content.insert(0, self.client.video_part(self.video))
        messages = [*self.messages, {"role": "user", "content": content}]
        more: dict[str, Any] = {
            "max_completion_tokens": self.max_tokens,
            "stream_options": {"include_usage": True},
            "return_spec_tokens_details": True,
            "return_cached_tokens_details": True,
        }
        if self.preset is not None:
            more["custom_params"] = {"lvspec": {"preset": self.preset}}
        answer, first = "", 0.0
        usage: dict[str, Any] = {}
        details: dict[str, Any] = {}
        for event in self.client.stream_chat(messages, **more):
            usage = event.get("usage") or usage
            details = event.get("sglext") or details
            for choice in event["choices"]:
                if piece := choice["delta"].get("content"):
                    first = first or time.monotonic()
                    answer += piece
                    yield piece
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        yield "\n" + self._figures(usage, details, time.monotonic() - first if first else 0.0)

    def _figures(self, usage: dict[str, Any], details: dict[str, Any], seconds: float) -> str:
        """``seconds`` from the first token to the last."""
        tokens, prompt = usage["completion_tokens"], usage["prompt_tokens"]
        cached = sum((details.get("cached_tokens_details") or {}).values())
        spec = details.get("spec_tokens_details") or {}
        rounds = spec.get("spec_verify_ct") or 0
        length = f"{spec['spec_num_correct_drafts'] / rounds:.2f}" if rounds else "-"
        speed = f"{(tokens - 1) / seconds:.0f}" if tokens > 1 and seconds > 0 else "-"
        return (
            f"[T {length} | {speed} tokens/s | {tokens} tokens, {rounds} rounds | "
            f"{cached} of {prompt} prompt tokens cached | preset {self.preset or 'default'}]"
        )


def add_parser(commands: Any) -> None:
    """Add ``chat`` to the ``lvspec`` command's subparsers."""
    parser = commands.add_parser(
        "chat", help="talk about a video", description="Talk about a video.\n\n" + HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--video", type=Path, required=True, help="a video file")
    parser.add_argument("--preset", help=f"{', '.join(PRESETS)} (default: the server's)")
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Talk until ``/quit`` or the end of the input; return the exit status."""
    video, preset, limit = arguments.video, arguments.preset, arguments.max_new_tokens
    try:
        # What can be wrong is said before a server is started.
        Conversation(Client(""), video, preset, limit)
        with connect(arguments) as client:
            print(f"About {video}. /help lists the commands.")
            talk(Conversation(client, video, preset, limit), _lines())
    except ERRORS as error:
        print(f"lvspec chat: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
    return 0


def talk(conversation: Conversation, lines: Iterator[str]) -> None:
    """Answer each line; what goes wrong in one turn is said, and the next one is awaited."""
    for line in lines:
        try:
            if line.partition(" ")[0] == "/quit":
                return
            if line.startswith("/"):
                print(_command(conversation, line))
            elif line:
                for piece in conversation.ask(line):
                    print(piece, end="", flush=True)
                print()
        except KeyboardInterrupt:
            print("\n(interrupted; this turn is forgotten)")
        except requests.ConnectionError:
            lost = f"the server at {conversation.client.url} does not answer any more"
            print(f"lvspec chat: {lost}", file=sys.stderr)
        except (ValueError, OSError, Refused) as error:
            print(f"lvspec chat: {error}", file=sys.stderr)


def _command(conversation: Conversation, line: str) -> str:
    """Carry out a command and return what to say.

    Raises:
        ValueError, FileNotFoundError: an unknown command, or a wrong argument.
    """
    name, _, argument = line.partition(" ")
    argument = argument.strip()
    if name == "/help":
        return HELP
    if name == "/strict":
        name, argument = "/preset", "strict"
    if name == "/preset":
        conversation.relax(argument)
        return f"From the next turn on: {argument}."
    if name == "/video":
        if not argument:
            raise ValueError("/video FILE: name a file")
        conversation.show(Path(argument).expanduser())
        return f"About {argument}, afresh."
    raise ValueError(f"unknown command {name}; /help lists the commands")


def _lines() -> Iterator[str]:
    """Typed lines, stripped; those of a pipe are shown as if they had been typed."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            print(f"> {line.strip()}", flush=True)
            yield line.strip()
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its history
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            print()
            return
