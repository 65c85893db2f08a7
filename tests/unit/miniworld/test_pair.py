"""The pair that comes with the package: where it is, and that it still sees what it saw."""

from pathlib import Path

import pytest

from lvspec_sglang import miniworld
from lvspec_sglang.miniworld.agreement import measure
from lvspec_sglang.miniworld.checkpoint import load_model
from lvspec_sglang.miniworld.data import Prompter
from lvspec_sglang.miniworld.decode import video_tokens
from lvspec_sglang.miniworld.evaluate import HeldOut, answer_all, video_table
from lvspec_sglang.miniworld.score import score_answers


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    pytest.importorskip("decord")
    return HeldOut.make(12)


def test_both_describe_held_out_clips_and_draft_as_apart_as_real_models(held_out: HeldOut) -> None:
    answers, scores, models = {}, {}, {}
    for name in ("target", "draft"):
        models[name], tokenizer = load_model(getattr(miniworld.paths(), name))
        prompter = Prompter(tokenizer)
        answers[name] = answer_all(models[name], prompter, held_out, questions=2)
        scores[name] = score_answers(held_out.truth, answers[name])["all"]
        assert scores[name].parse_rate > 0.95
    assert scores["target"].accuracy > 0.85
    assert scores["draft"].accuracy > 0.7
    captions = [prompter.encode(a["text"]) for a in answers["target"] if a["question"] is None]
    prompts = [prompter.prompt(line["caption_prompt"]) for line in held_out.truth]
    video = video_tokens(models["draft"], held_out.pixels)
    agreement = measure(models["draft"], prompter, video, prompts, captions)
    assert 2.0 < agreement.mean_accepted < 5.5
    assert agreement.kinds["filler"] > agreement.kinds["fact"]


def test_the_facts_come_from_the_video(held_out: HeldOut) -> None:
    model, tokenizer = load_model(miniworld.paths().target)
    rows = video_table(model, Prompter(tokenizer), held_out)
    total = dict(zip(rows[0], rows[-1], strict=True))
    assert float(total["true"]) > 85
    for condition in ("blank", "swapped"):
        assert float(total[condition]) < float(total["chance"]) + 15


def test_missing_checkpoints_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniworld, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match=r"lvspec miniworld train --out .* --run state"):
        miniworld.paths()
