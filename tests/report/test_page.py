"""The page's data: what differs, what is inside, what is refused."""

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang.cli import main
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.config import RelaxConfig
from lvspec_sglang.metrics import TRACE_COLUMNS
from lvspec_sglang.report.frames import FRAMES, read_frames
from lvspec_sglang.report.page import differences, render
from lvspec_sglang.report.record import check_record, pieces, record_run
from lvspec_sglang.verify.rule import Kind
from tests.report.runs import simulate


@pytest.fixture
def record() -> dict[str, Any]:
    return simulate(RelaxConfig(loose_ratio=0.5, draft_shift=2), rounds=8, seed=1)[0]


def test_a_page_holds_its_record_and_fetches_nothing(record: dict[str, Any]) -> None:
    page = render(record)
    held = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.S)
    assert held is not None
    data = json.loads(held[1])
    assert data["trace"] == json.loads(json.dumps(record["trace"]))
    assert data["prompt"] == record["prompt"]
    assert "http" not in page.replace("http-equiv", "")


def test_differences_are_the_tokens_the_other_answer_lacks() -> None:
    assert differences([1, 2, 9, 3, 4], [1, 2, 3, 5, 4]) == {"relaxed": [2], "strict": [3]}
    assert differences([1, 2], [1, 2]) == {"relaxed": [], "strict": []}
    assert differences([], [7]) == {"relaxed": [], "strict": [0]}


class Bytes:
    """A server whose tokens are bytes."""

    def detokenize(self, tokens: list[list[int]]) -> list[str]:
        return [bytes(each).decode(errors="replace") for each in tokens]


@pytest.mark.parametrize("text", ["plain", "café ✓ 視", ""])
def test_pieces_join_to_the_text_even_where_characters_are_split(text: str) -> None:
    split = pieces(Bytes(), list(text.encode()))  # type: ignore[arg-type]
    assert len(split) == len(text.encode())
    assert "".join(split) == text


class OneToken(Bytes):
    """A server that answers with one token: no round, so its ``meta_info`` tells of none."""

    url = "http://127.0.0.1:1"

    def video_part(self, video: Path) -> dict[str, Any]:
        return {"type": "video_url"}

    def chat(self, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        trace = {column: [65 if column == "target" else -1] for column in TRACE_COLUMNS}
        return {"response_token_ids": [65], "meta_info": {"lvspec_trace": trace}}

    def info(self) -> dict[str, Any]:
        return {
            "internal_states": [{"lvspec": {"reference_scores": []}}],
            "model_path": "target",
            "speculative_draft_model_path": None,
            "speculative_num_steps": 10,
        }


def test_an_answer_without_a_round_can_be_recorded(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_square(8, seed=1))
    record = record_run(OneToken(), clip, "?", {"preset": "paper"}, 1)  # type: ignore[arg-type]
    assert record["relaxed"] == {"ids": [65], "pieces": ["A"], "rounds": 0, "accepted": 0}
    assert render(check_record(record))


def test_frames_are_spread_over_the_video(tmp_path: Path) -> None:
    frames = read_frames(write_clip(tmp_path / "clip.mp4", moving_square(41, seed=1)))
    assert len(frames) == FRAMES
    assert frames[0]["seconds"] == 0 and frames[-1]["seconds"] == pytest.approx(5.0)
    assert all(frame["picture"].startswith("data:image/jpeg;base64,") for frame in frames)
    assert len(read_frames(write_clip(tmp_path / "one.mp4", moving_square(1, seed=1)))) == 1
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(ValueError, match="could not decode the video"):
        read_frames(broken)


def test_a_kept_run_is_shown_again(record: dict[str, Any], tmp_path: Path) -> None:
    kept, out = tmp_path / "run.json", tmp_path / "page.html"
    kept.write_text(json.dumps(record))
    assert main(["report", "--record", str(kept), "--out", str(out)]) == 0
    assert out.read_text() == render(json.loads(kept.read_text()))


def test_what_is_no_record_is_refused(record: dict[str, Any]) -> None:
    assert check_record(record) is record
    for wrong in ([], {}, {"video": "x"}):
        with pytest.raises(ValueError, match="not a record"):
            check_record(wrong)
    short = copy.deepcopy(record)
    short["trace"]["kind"].pop()
    with pytest.raises(ValueError, match="whose trace has"):
        check_record(short)
    for damage in ({"relaxed": None}, {"relaxed": {}}, {"trace": []}):
        with pytest.raises(ValueError, match="not a whole record"):
            check_record({**record, **damage})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --video to ask about, or --record"),
        (["--record", "/no/such.json"], "/no/such.json"),
        (["--record", __file__], "is not JSON"),
        (["--record", sys.executable], f"{sys.executable} is not JSON"),
        (["--video", __file__, "--record", "/no/such/run.json"], "no folder /no/such to write"),
        (["--video", __file__, "--record", "/tmp"], "/tmp is a folder: name a file in it"),
        (["--video", "/no/such.mp4"], "no file /no/such.mp4"),
        (["--video", __file__, "--preset", "quick"], "preset 'quick': one of"),
        (["--video", __file__, "--relax", '{"losse_ratio": 1}'], "unknown lvspec key"),
        (["--video", __file__, "--url", "http://127.0.0.1:9"], "no server answers at"),
    ],
)
def test_what_is_wrong_is_said_before_a_server_starts(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments, "--out", str(tmp_path / "page.html")]) == 2
    assert said in capsys.readouterr().err


def test_a_simulated_run_is_as_a_server_records_it(record: dict[str, Any]) -> None:
    """The tests of the page rest on it."""
    trace = record["trace"]
    assert tuple(trace) == TRACE_COLUMNS
    for kind, drafted, target, token in zip(
        trace["kind"], trace["drafted"], trace["target"], record["relaxed"]["ids"], strict=True
    ):
        own = kind in (Kind.TARGET, Kind.BONUS)
        assert token == (target if own else drafted)
        assert (kind == Kind.MATCH) <= (drafted == target)
    assert Kind.LOOSE in trace["kind"]
