"""The ``lvspec`` command."""

import argparse
import sys
from pathlib import Path

from lvspec_sglang import __version__, chat
from lvspec_sglang.arguments import positive
from lvspec_sglang.bench.cli import add_parser as add_bench
from lvspec_sglang.connect import ERRORS
from lvspec_sglang.miniworld.cli import add_parser as add_miniworld
from lvspec_sglang.report import command as report
from lvspec_sglang.serving import exit_on_signals


def main(argv: list[str] | None = None) -> int:
    """Run ``lvspec`` with ``argv`` (default: the process's); return the exit status."""
    arguments = _parser().parse_args(argv)
    with exit_on_signals():
        return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lvspec", description="LVSPEC: loosely speculative decoding for video LLMs in SGLang."
    )
    parser.add_argument("--version", action="version", version=f"lvspec_sglang {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="serve two small checkpoints and ask about a video")
    demo.add_argument(
        "--video", type=Path, help="a video file; without it the mini world gives one"
    )
    demo.add_argument(
        "--max-new-tokens", type=positive, default=128, help="an answer's limit (128)"
    )
    demo.set_defaults(run=_demo)

    doctor = commands.add_parser("doctor", help="what is installed, what is missing, the remedy")
    doctor.set_defaults(run=_doctor)

    chat.add_parser(commands)
    report.add_parser(commands)
    add_miniworld(commands)
    add_bench(commands)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    from lvspec_sglang import demo

    try:
        if arguments.video is not None and not arguments.video.is_file():
            raise FileNotFoundError(f"no file {arguments.video}; leave --video out")
        return demo.run(arguments.max_new_tokens, arguments.video)
    except ERRORS as error:
        print(f"lvspec demo: {error}", file=sys.stderr)
        return 2


def _doctor(arguments: argparse.Namespace) -> int:
    from lvspec_sglang import doctor

    return doctor.run()


if __name__ == "__main__":
    sys.exit(main())
