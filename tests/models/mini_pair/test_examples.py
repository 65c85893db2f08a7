"""Each example as its docstring runs it."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from lvspec_sglang.clips import moving_square
from lvspec_sglang.serving import LocalServer
from tests.e2e.prompts import IMAGE, chat, flush, request
from tests.models.mini_pair.conftest import truths

EXAMPLES = Path(__file__).parents[3] / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_openai_client_pays_for_a_video_once(pair: dict[str, LocalServer], world: Path) -> None:
    truth = truths(world)[0]
    printed = run(
        "multi_turn_chat.py", str(world / truth["video"]), "--url", pair["lvspec"].url,
        "--preset", "paper",
    )  # fmt: skip
    assert truth["facts"]["count"] in printed.split("How many objects are there?")[1]
    cached = [int(count) for count in re.findall(r"(\d+) of \d+ prompt tokens cached", printed)]
    assert len(cached) == 3 and cached[1] > 294 and cached[2] > 294


def test_a_frontend_program_forks_over_questions_on_one_video(
    pair: dict[str, LocalServer], world: Path
) -> None:
    truth = truths(world)[0]
    video = str(world / truth["video"])
    flush(pair["lvspec"])
    printed = run("frontend_program.py", video, "--url", pair["lvspec"].url)
    for kind in ("count", "moving", "backdrop"):
        asked = next(item for item in truth["questions"] if item["kind"] == kind)
        assert asked["value"] in printed.split(asked["question"])[1].split("(")[0]
    cached = [int(count) for count in re.findall(r"\((\d+) prompt tokens cached\)", printed)]
    assert len(cached) == 3 and min(cached) > 294


def test_what_the_hosts_frontend_sends_for_a_video_is_refused_by_the_server(
    pair: dict[str, LocalServer],
) -> None:
    """Why ``sgl.video`` needs its patch, wherever OpenCV is installed."""
    picture = io.BytesIO()
    Image.fromarray(moving_square(1, seed=1)[0]).save(picture, "PNG")
    payload = request(chat(IMAGE + "What is it?"), 8)
    payload["image_data"] = "video:" + base64.b64encode(picture.getvalue() * 4).decode()
    response = pair["lvspec"].post("/generate", payload)
    assert response.status_code == 400 and "loading IMAGE data" in response.text


def test_the_offline_engine_drafts_too(world: Path) -> None:
    truth = truths(world)[0]
    printed = run("offline_engine.py", str(world / truth["video"]))
    for thing in ("cross", "ring"):
        assert f"{truth['facts'][thing + '.color']} {thing}" in printed
    length = re.search(r"(\d+\.\d) tokens a round", printed)
    assert length is not None and float(length[1]) > 2
