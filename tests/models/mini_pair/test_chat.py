"""``lvspec chat`` against a running server, from a pipe and at a terminal."""

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from lvspec_sglang.cli import main
from lvspec_sglang.client import Client
from lvspec_sglang.serving import LocalServer
from tests.models.mini_pair.conftest import truths


def chat(server: Client, video: Path, *lines: str) -> tuple[str, str]:
    """What ``lvspec chat`` printed, and its complaints."""
    done = subprocess.run(
        [
            sys.executable, "-m", "lvspec_sglang.cli", "chat", "--video", str(video),
            "--url", server.url, "--max-new-tokens", "160",
        ],
        input="\n".join(lines), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_turns_share_the_video_and_show_their_figures(
    pair: dict[str, LocalServer], world: Path
) -> None:
    truth = truths(world)[0]
    clip = world / truth["video"]
    printed, complaints = chat(
        pair["lvspec"], clip, truth["caption_prompt"], "/preset paper", "How many objects move?",
        "/strict", "How many objects are there?", f"/video {world / 'held_7001.mp4'}",
        "Describe the video.", "/quit", "never asked",
    )  # fmt: skip
    assert complaints == ""
    figures = re.findall(
        r"\[T ([\d.]+) \| (\d+) tokens/s \| (\d+) tokens, (\d+) rounds \| "
        r"(\d+) of (\d+) prompt tokens cached \| preset (\w+)\]",
        printed,
    )
    assert [row[-1] for row in figures] == ["default", "paper", "strict", "strict"]
    assert all(0 < float(row[0]) <= 10 for row in figures)
    cached = [int(row[4]) for row in figures]
    # Turns two and three find the video in the cache; another video is another conversation.
    assert cached[1] > 294 and cached[2] > 294
    assert int(figures[3][5]) < int(figures[1][5])
    assert "never asked" not in printed


def test_strict_turns_are_the_targets_own(pair: dict[str, LocalServer], world: Path) -> None:
    clip = world / truths(world)[1]["video"]
    asked = ("/strict", "Describe the video.", "How many objects are there?")
    answers = [
        [line for line in chat(server, clip, *asked)[0].splitlines() if line[0] not in "[>"]
        for server in pair.values()
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 4


def test_a_mistake_costs_one_line(pair: dict[str, LocalServer], world: Path) -> None:
    clip = world / truths(world)[0]["video"]
    broken = world / "broken.mp4"
    broken.write_bytes(b"not a video")
    printed, complaints = chat(
        pair["lvspec"], clip, "/vdieo x.mp4", "/preset quick", "/video /no/such.mp4", "/video",
        f"/video {broken}", "What is it?", f"/video {clip}", "How many objects are there?",
        "/quit now", "/vdieo y.mp4",
    )  # fmt: skip
    said = complaints.splitlines()
    assert said[0] == "lvspec chat: unknown command /vdieo; /help lists the commands"
    assert said[1].startswith("lvspec chat: preset 'quick': one of strict")
    assert said[2] == "lvspec chat: no file /no/such.mp4"
    assert said[3] == "lvspec chat: /video FILE: name a file"
    assert said[4].startswith("lvspec chat: the server refused the request (HTTP 400)")
    assert "objects" in printed.splitlines()[-3]
    assert "y.mp4" not in complaints


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--video", "/no/such.mp4"], "no file /no/such.mp4"),
        (["--video", __file__, "--preset", "quick"], "preset 'quick': one of strict"),
        (["--video", __file__, "--url", "http://127.0.0.1:9"], "no server answers at"),
        (["--video", __file__, "--draft", "a"], "--draft needs the --model it drafts for"),
        (["--video", __file__, "--model", "a", "--url", "b"], "leave --model and --draft out"),
    ],
)
def test_what_is_wrong_is_said_before_a_server_starts(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_it_prompts_at_a_terminal(pair: dict[str, LocalServer], world: Path) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "lvspec_sglang.cli", "chat",
            "--video", str(world / truths(world)[0]["video"]), "--url", pair["lvspec"].url,
        ],
        stdin=its, stdout=its, stderr=its,
    )  # fmt: skip
    os.close(its)
    seen = ""

    def until(wanted: str) -> None:
        nonlocal seen
        while wanted not in seen:
            assert select.select([ours], [], [], 120)[0], f"no {wanted!r} in {seen!r}"
            seen += os.read(ours, 4096).decode()
        seen = seen.split(wanted, 1)[1]

    until("> ")
    os.write(ours, b"How many objects are there?\n")
    until("prompt tokens cached | preset default]")
    until("> ")
    os.write(ours, b"\x04")  # Ctrl-D
    assert process.wait(60) == 0
    os.close(ours)
