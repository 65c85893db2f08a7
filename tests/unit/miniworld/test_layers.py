"""Which layers tell facts from wording: the ranking by example, and a clip of the real pair."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lvspec_sglang import miniworld
from lvspec_sglang.miniworld.checkpoint import load_model
from lvspec_sglang.miniworld.data import Prompter
from lvspec_sglang.miniworld.decode import branch, generate, read, video_tokens
from lvspec_sglang.miniworld.evaluate import HeldOut
from lvspec_sglang.miniworld.layers import (
    area_under_roc,
    judge,
    mean_accepted,
    measured,
    passes,
    rank,
)
from lvspec_sglang.miniworld.mismatches import Mismatches
from lvspec_sglang.miniworld.scene import TUNING
from lvspec_sglang.relevance.measured import Measured
from tests.unit.miniworld.test_cli import command

TOKENS = 9


def mismatches(scores: list[list[float]], lost: list[int]) -> Mismatches:
    """Two texts of TOKENS tokens; mismatches at 2 and 5 of the first, at 3 and 6 of the second."""
    text, place = np.array([0, 0, 1, 1]), np.array([2, 5, 3, 6])
    agreed = [np.ones(TOKENS, bool) for _ in range(2)]
    for number, at in zip(text, place, strict=True):
        agreed[number][at] = False
    rows = np.array(scores, np.float16)
    return Mismatches(agreed, text, place, rows, np.array(lost), 8, 0, rows)


def test_rounds_stop_at_mismatches_and_at_the_chain() -> None:
    text = np.ones(12, bool)
    # From token 1: 4 accepted and a bonus, twice, then the last token alone.
    assert mean_accepted([text], chain=4) == (4 + 4 + 1) / 3
    text[[3, 4]] = False
    # 1, 2 | target's 3; nothing | target's 4; 5-8 | bonus 9; 10, 11.
    assert mean_accepted([text], chain=4) == (2 + 0 + 4 + 2) / 4
    text[0] = False
    assert mean_accepted([text], chain=4) == (2 + 0 + 4 + 2) / 4, "prefill gives the first token"
    assert mean_accepted([np.ones(1, bool)]) == 0.0


def test_area_under_roc_counts_ties_half() -> None:
    harmful = np.array([False, False, True, True])
    assert area_under_roc(np.array([1.0, 2.0, 3.0, 4.0]), harmful) == 1.0
    assert area_under_roc(np.array([3.0, 4.0, 1.0, 2.0]), harmful) == 0.0
    assert area_under_roc(np.array([1.0, 3.0, 3.0, 0.0]), harmful) == (1.5 + 0) / 4
    assert area_under_roc(np.zeros(4), np.zeros(4, bool)) is None


def test_the_layer_that_keeps_facts_is_best() -> None:
    # Layer 0 finds every mismatch that costs a fact visual, layer 1 none, layer 2 cannot tell.
    found = mismatches([[0.1, 0.9, 1], [0.9, 0.1, 1], [0.2, 0.8, 1], [0.8, 0.2, 1]], [0, 2, 0, 1])
    strict = mean_accepted(passes(found, np.zeros(4, bool)))
    ranking = rank(found, longer=1.3)
    assert ranking.strict == strict and ranking.wanted == pytest.approx(1.3 * strict)
    assert ranking.best.layers == (0,)
    lost = {row.layers: row.lost for row in ranking.sets}
    assert lost[0,] == 0 < lost[1,]
    assert [len(row.layers) for row in ranking.sets] == [1, 1, 1, 2, 3]
    assert ranking.others["middle third"].layers == (1,)
    assert ranking.others["all layers"].layers == (0, 1, 2)


def test_two_layers_beat_one_where_each_misses_a_fact() -> None:
    found = mismatches([[0.0, 0.9], [0.9, 0.0], [0.1, 0.1], [0.2, 0.2]], [1, 1, 0, 0])
    assert rank(found, longer=1.3).best.layers == (0, 1)


def test_the_wanted_length_is_one_that_can_be_reached() -> None:
    found = mismatches([[0.0], [0.0], [0.0], [0.0]], [1, 1, 1, 1])
    ranking = rank(found, longer=100)
    assert ranking.wanted == TOKENS - 1
    assert ranking.best.lost == ranking.best.accepted == 4
    assert judge(found, (0,), wanted=0.0).accepted == 0


def test_the_entry_for_a_config_is_one_that_is_read() -> None:
    found = mismatches([[0.1, 9], [0.4, 9], [0.2, 9], [0.3, 9]], [0, 0, 0, 0])
    entry = measured(found, (0,))
    read_back = Measured.of(SimpleNamespace(lvspec=entry))
    assert read_back is not None and read_back.layers == (0,)
    assert read_back.scores[0] == pytest.approx(0.1, abs=0.01)
    assert read_back.scores[-1] == pytest.approx(0.4, abs=0.01)


@pytest.fixture(scope="module")
def clip() -> HeldOut:
    pytest.importorskip("decord")
    return HeldOut.make(1, TUNING)


def test_a_branch_goes_on_as_a_text_decoded_anew(clip: HeldOut) -> None:
    model, tokenizer = load_model(miniworld.paths().target)
    prompter = Prompter(tokenizer)
    video = video_tokens(model, clip.pixels)
    prompt = prompter.prompt(clip.truth[0]["caption_prompt"])
    text = generate(model, prompter, video, [prompt], 12)[0]
    logits, cache = read(model, prompter, video, prompt, text)
    assert logits.argmax(-1)[:-1].tolist() == text
    places, second = [3, 7], logits.topk(2).indices[:, 1].tolist()
    tokens = [second[place] for place in places]
    slots = [prompter.prefix + len(prompt) + place for place in places]
    for place, token, ending in zip(
        places, tokens, branch(model, prompter, cache, slots, tokens, 12), strict=True
    ):
        anew = generate(model, prompter, video, [[*prompt, *text[:place], token]], 12)
        assert ending == anew[0]


def test_the_pair_on_a_clip(
    clip: HeldOut,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "layers.json"
    monkeypatch.setattr(HeldOut, "make", lambda clips, seed: clip)
    assert command("layers", "--clips", "1", "--json", str(file)) == 0
    record = json.loads(file.read_text())
    layers = 14
    assert record["bench"] == "miniworld layers"
    assert [row["layers"] for row in record["sets"][:layers]] == [[n] for n in range(layers)]
    assert record["strict"] < record["wanted"]
    assert record["mismatches"] > 5
    assert (record["lvspec"] is None) == (record["harmful"] == 0)
    assert f"of {record['facts']}" in capsys.readouterr().out


def test_no_clips_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("layers", "--clips", "0") == 2
    assert "give at least 1" in capsys.readouterr().err
