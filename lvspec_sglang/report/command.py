"""The ``lvspec report`` command."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lvspec_sglang.config import PRESETS
from lvspec_sglang.connect import ERRORS, add_arguments, connect


def add_parser(commands: Any) -> None:
    """Add ``report`` to the ``lvspec`` command's subparsers."""
    parser = commands.add_parser(
        "report",
        help="an HTML page that shows why each token was committed",
        description="Ask about a video, relaxed and strict, and write a page about the answers.",
    )
    parser.add_argument("--video", type=Path, help="a video file")
    parser.add_argument("--prompt", default="Describe the video.", help="(Describe the video.)")
    parser.add_argument("--preset", default="balanced", help=f"{', '.join(PRESETS)} (balanced)")
    parser.add_argument(
        "--relax", type=_object, default={}, metavar="JSON",
        help="""more of a request's lvspec keys, for example '{"loose_ratio": 0.5}'""",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the page, an HTML file")
    parser.add_argument(
        "--record", type=Path, metavar="JSON",
        help="where the run is kept; without --video, the kept run to show again",
    )  # fmt: skip
    add_arguments(parser)
    parser.set_defaults(run=run)


def _object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except json.JSONDecodeError:
        given = None
    if not isinstance(given, dict) or given.get("preset", "") is None:
        raise argparse.ArgumentTypeError(
            f"""{text!r}: a JSON object, for example '{{"loose_ratio": 0.5}}'"""
        )
    return given


def run(arguments: argparse.Namespace) -> int:
    """Write the page; return the exit status."""
    try:
        record = _record(arguments)
        from lvspec_sglang.report.page import render

        arguments.out.write_text(render(record), encoding="utf-8")
    except ERRORS as error:
        print(f"lvspec report: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: {len(record['trace']['kind'])} tokens of {record['video']}")
    return 0


def _record(arguments: argparse.Namespace) -> dict[str, Any]:
    """A kept run, or a new one."""
    from lvspec_sglang.config import RelaxConfig
    from lvspec_sglang.config_json import parse_request
    from lvspec_sglang.report.record import check_record, record_run

    video, kept = arguments.video, arguments.record
    for written in (arguments.out, kept if video is not None else None):
        if written is None:
            continue
        if not written.parent.is_dir():
            raise FileNotFoundError(f"no folder {written.parent} to write {written.name} to")
        if written.is_dir():
            raise FileNotFoundError(f"{written} is a folder: name a file in it")
    if video is None:
        if kept is None:
            raise ValueError("give --video to ask about, or --record with a kept run")
        try:
            return check_record(json.loads(kept.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{kept} is not JSON: {error}") from error
    if not video.is_file():
        raise FileNotFoundError(f"no file {video}")
    given = {"preset": arguments.preset, **arguments.relax}
    parse_request(given, RelaxConfig())  # what is wrong is said before a server is started
    with connect(arguments) as client:
        record = record_run(client, video, arguments.prompt, given, arguments.max_new_tokens)
    if kept is not None:
        kept.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return record
