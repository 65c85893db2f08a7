"""The command line: sample writes clips with their truth, score finds what is wrong."""

import argparse
import json
from pathlib import Path

import pytest

from lvspec_sglang.miniworld.captions import caption
from lvspec_sglang.miniworld.cli import add_parser
from lvspec_sglang.miniworld.habits import TARGET
from lvspec_sglang.miniworld.scene import HELD_OUT, make_scene


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["miniworld", *words])
    return int(arguments.run(arguments))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("sampled")
    assert command("sample", "--clips", "2", "--seed", "4", "--out", str(folder)) == 0
    return folder


def answers(folder: Path, *lines: tuple[str, str | None, str]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text(
        "".join(json.dumps({"video": v, "question": q, "text": t}) + "\n" for v, q, t in lines)
    )
    return path


def test_sample_writes_clips_and_truth(sampled: Path) -> None:
    truth = [json.loads(line) for line in (sampled / "truth.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in truth] == [HELD_OUT + 4, HELD_OUT + 5]
    for line in truth:
        assert (sampled / line["video"]).stat().st_size > 1000
        assert {"video", "caption_prompt", "questions", "facts"} <= line.keys()


def test_train_says_that_there_is_no_pair_to_train_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ("--out", str(tmp_path / "out"), "--run", str(tmp_path / "state"))
    assert command("train", *folders, "--continue-from", str(tmp_path / "none")) == 2
    assert f"{tmp_path}/none/target" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluate", "parity"])
def test_no_clips_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(name, "--clips", "0") == 2
    assert "--clips 0: give at least 1" in capsys.readouterr().err


def test_score_counts_a_wrong_fact(
    sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(HELD_OUT + 4)
    thing = scene.things[0]
    wrong = caption(scene, TARGET).replace(f"{thing.size} {thing.color}", "huge pink", 1)
    truth = json.loads((sampled / "truth.jsonl").read_text().splitlines()[0])
    count = next(item for item in truth["questions"] if item["kind"] == "count")
    path = answers(
        tmp_path,
        ("held_4.mp4", None, caption(scene, TARGET)),
        ("held_4.mp4", None, wrong),
        ("clips/held_4.mp4", count["question"], "I count zero objects."),
    )
    files = ("--truth", str(sampled / "truth.jsonl"), "--answers", str(path))
    assert command("score", *files, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    facts = 2 * len(truth["facts"])
    assert scores["captions"]["facts"] == facts
    missed = {(entry["fact"], entry["said"]) for entry in scores["captions"]["wrong"]}
    assert (f"{thing.shape}.color", None) in missed or (f"{thing.shape}.size", None) in missed
    assert scores["captions"]["parse_rate"] == 0.5
    assert scores["questions"]["accuracy"] == 0.0
    assert scores["questions"]["parse_rate"] == 1.0
    assert scores["all"]["facts"] == facts + 1
    assert command("score", *files) == 0
    assert f"count: zero, truth {count['value']}" in capsys.readouterr().out


def test_perfect_answers_score_perfectly(
    sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [(f"held_{n}.mp4", None, caption(make_scene(HELD_OUT + n), TARGET)) for n in (4, 5)]
    path = answers(tmp_path, *lines)
    truth = str(sampled / "truth.jsonl")
    assert command("score", "--truth", truth, "--answers", str(path), "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["all"]["accuracy"] == scores["all"]["parse_rate"] == 1.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"video": "other.mp4", "question": null, "text": ""}', "not in the truth file"),
        ('{"video": "held_4.mp4", "question": "Why?", "text": ""}', "has no question"),
        ('{"video": "held_4.mp4", "text": ""}', "lacks ['question']"),
        ("not json", "write one object a line"),
    ],
)
def test_unusable_answers_are_refused(
    sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    assert command("score", "--truth", str(sampled / "truth.jsonl"), "--answers", str(path)) == 2
    assert message in capsys.readouterr().err


def test_sample_refuses_no_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("sample", "--clips", "0", "--out", str(tmp_path)) == 2
    assert "give at least 1" in capsys.readouterr().err


def test_sample_writes_chat_requests_about_its_clips(sampled: Path) -> None:
    lines = (sampled / "bench_serving.jsonl").read_text().splitlines()
    truths = [json.loads(line) for line in (sampled / "truth.jsonl").read_text().splitlines()]
    requests = [json.loads(line) for line in lines]
    assert len(requests) == len(truths) * 5
    for number, request in enumerate(requests):
        video, text = request["messages"][0]["content"]
        assert Path(video["video_url"]["url"]) == (sampled / truths[number // 5]["video"]).resolve()
        assert text["type"] == "text" and text["text"]
    assert requests[5]["messages"][0]["content"][1]["text"] == truths[1]["caption_prompt"]
