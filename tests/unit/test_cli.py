"""The ``lvspec`` command: a mistake or a failing server costs a line, not a traceback."""

import argparse
from pathlib import Path

import pytest

from lvspec_sglang import demo
from lvspec_sglang.bench import fidelity
from lvspec_sglang.cli import main
from lvspec_sglang.client import Refused
from lvspec_sglang.serving import ServerFailed


@pytest.mark.parametrize(
    "error",
    [
        ServerFailed("the server ended early:\nout of memory"),
        Refused("the server refused the request (HTTP 400): too long"),
        FileNotFoundError("no checkpoint in /checkpoints: reinstall lvspec-sglang"),
    ],
)
def test_a_demo_that_fails_says_why(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(max_new_tokens: int, video: Path | None) -> int:
        raise error

    monkeypatch.setattr(demo, "run", fail)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == f"lvspec demo: {error}\n"


def test_a_demo_without_its_video_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--video", "/no/such.mp4"]) == 2
    assert capsys.readouterr().err == "lvspec demo: no file /no/such.mp4; leave --video out\n"


def test_a_refused_bench_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(arguments: argparse.Namespace) -> None:
        raise Refused("the server refused the request (HTTP 400): too long")

    monkeypatch.setattr(fidelity, "run", refused)
    assert main(["bench", "fidelity"]) == 2
    assert capsys.readouterr().err.startswith("lvspec bench fidelity: the server refused")


@pytest.mark.parametrize("given", ["0", "a", "1,,4", "-1"])
def test_a_bench_takes_batch_sizes(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "draft-length", f"--batches={given}"])
    assert "argument --batches" in capsys.readouterr().err


def test_a_demo_of_one_token_has_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    meta = {"completion_tokens": 1, "cached_tokens": 0}
    turns = {name: [demo.Turn("a", 0.1, meta)] for name in (demo.ALONE, demo.STRICT)}
    demo._report(turns)
    assert "no more than a token each" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["[1]", "0.5", "loose_ratio=1", '{"loose_ratio": '])
def test_report_takes_an_object_to_relax_by(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["report", "--video", "clip.mp4", "--out", "page.html", "--relax", given])
    said = f"""{given!r}: a JSON object, for example '{{"loose_ratio": 0.5}}'"""
    assert said in capsys.readouterr().err
