"""The trained pair behind the server: true captions, useful drafts, more of them when relaxed."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang.bench import fidelity
from lvspec_sglang.cli import main
from lvspec_sglang.miniworld.parse import parse_caption
from lvspec_sglang.miniworld.score import Score
from lvspec_sglang.serving import LocalServer
from tests.e2e.prompts import VIDEO, chat, request
from tests.models.mini_pair.conftest import truths


def captions(server: LocalServer, world: Path, **sampling: Any) -> list[dict[str, Any]]:
    return [
        server.generate(
            **request(
                chat(VIDEO + truth["caption_prompt"]), 160, video=world / truth["video"], **sampling
            )
        )
        for truth in truths(world)
    ]


def test_captions_are_the_targets_and_true(pair: dict[str, LocalServer], world: Path) -> None:
    alone, lvspec = (captions(server, world) for server in pair.values())
    assert [c["output_ids"] for c in lvspec] == [c["output_ids"] for c in alone]
    score = Score()
    for truth, caption in zip(truths(world), lvspec, strict=True):
        assert caption["meta_info"]["finish_reason"]["type"] == "stop"
        score.add_caption(truth["video"], truth["facts"], caption["text"])
    assert score.accuracy > 0.9, score.wrong


def test_a_second_turn_is_the_targets(pair: dict[str, LocalServer], world: Path) -> None:
    truth = truths(world)[0]
    caption = captions(pair["alone"], world)[0]["text"]
    asked = chat(VIDEO + truth["caption_prompt"], caption, truth["questions"][0]["question"])
    payload = request(asked, 60, video=world / truth["video"])
    alone, lvspec = (server.generate(**payload) for server in pair.values())
    assert lvspec["output_ids"] == alone["output_ids"]
    assert lvspec["meta_info"]["cached_tokens"] > 290


def test_a_measured_target_accepts_more_in_balanced_and_loses_nothing(
    pair: dict[str, LocalServer], world: Path
) -> None:
    def answers(preset: str) -> list[dict[str, Any]]:
        relax = {"preset": preset, "trace": preset != "strict"}
        return captions(pair["lvspec"], world, custom_params={"lvspec": relax})

    def accepted(given: list[dict[str, Any]]) -> float:
        metas = [answer["meta_info"] for answer in given]
        drafts = sum(meta["spec_num_correct_drafts"] for meta in metas)
        return drafts / sum(meta["spec_verify_ct"] for meta in metas)

    strict, balanced = answers("strict"), answers("balanced")
    assert 2.0 < accepted(strict) < 6.0
    assert accepted(balanced) > 1.5 * accepted(strict)
    for truth, one, other in zip(truths(world), strict, balanced, strict=True):
        assert parse_caption(one["text"]) == parse_caption(other["text"]), truth["video"]
    # One threshold for every request, from the first drafted token on.
    drafted = [answer["meta_info"]["lvspec_trace"]["threshold"][1] for answer in balanced]
    assert drafted[0] is not None and len({*drafted}) == 1


def test_the_fidelity_bench_measures_the_pair(
    pair: dict[str, LocalServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def running(config: dict[str, Any] | None) -> contextlib.AbstractContextManager[LocalServer]:
        return contextlib.nullcontext(pair["alone" if config is None else "lvspec"])

    monkeypatch.setattr(fidelity, "start", running)
    path = tmp_path / "fidelity.json"
    command = ["bench", "fidelity", "--clips", "2", "--seed", "7000", "--rules", "presets"]
    assert main([*command, "--json", str(path), "--plot", str(tmp_path / "plot.png")]) == 0
    rows = {row["rule"]: row for row in json.loads(path.read_text())["rows"]}
    assert {"rule", "relaxation", "accuracy", "kept", "kept_ci95", "T", "rounds", "clips"} <= (
        rows["paper"].keys()
    )
    assert rows["strict"]["kept"] == 1.0 and rows["strict"]["clips"] == 2
    assert 1.3 * rows["strict"]["T"] < rows["paper"]["T"]
    assert rows["paper"]["kinds"]["loose"] > 0
    assert all(row["ran_on"] == 0 for row in rows.values())
    assert "paper" in capsys.readouterr().out
