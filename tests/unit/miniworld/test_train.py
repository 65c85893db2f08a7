"""The trainer: a broken run resumes to the very same weights, and growth changes nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lvspec_sglang.miniworld.data import Sampler
from lvspec_sglang.miniworld.model import Size, padded_vocab
from lvspec_sglang.miniworld.scene import HELD_OUT
from lvspec_sglang.miniworld.train import Learner, Stage, grow, train

STAGE = Stage(steps=4, batch=2, warmup=1, decay=0.5)


def run(
    size: Size, tokenizer: PreTrainedTokenizerFast, stage: Stage, folder: Path, save_every: int = 9
) -> dict[str, torch.Tensor]:
    return train(
        size,
        tokenizer,
        stage,
        folder,
        save_every=save_every,
        workers=0,
        compiled=False,
        log=lambda line: None,
    )


def test_a_broken_run_resumes_bit_identically(
    tiny: Size,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(tiny, tokenizer, STAGE, tmp_path / "whole")
    honest = Sampler.__getitem__

    def broken(self: Sampler, step: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return honest(self, step)

    monkeypatch.setattr(Sampler, "__getitem__", broken)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tokenizer, STAGE, tmp_path / "broken", save_every=2)
    monkeypatch.undo()
    resumed = run(tiny, tokenizer, STAGE, tmp_path / "broken", save_every=2)
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name


def test_another_stage_in_the_same_folder_is_refused(
    tiny: Size, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    run(tiny, tokenizer, Stage(steps=1, batch=1), tmp_path)
    with pytest.raises(ValueError, match="give the same settings, or another run"):
        run(tiny, tokenizer, Stage(steps=1, batch=1, rate=1e-4), tmp_path)


def test_a_grown_model_computes_the_same(tiny: Size, tokenizer: PreTrainedTokenizerFast) -> None:
    vocab = padded_vocab(tokenizer)
    torch.manual_seed(0)
    shallow = Learner(tiny, vocab)
    deep = Learner(Size(**(vars(tiny) | {"layers": 5})), vocab)
    deep.load_state_dict(grow(shallow.state_dict(), deep.net.size, vocab, seed=1))
    batch = Sampler(tokenizer, ("target",), 1, 3)[0]
    losses = [model.losses(batch, 310).words.item() for model in (shallow, deep)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    with pytest.raises(ValueError, match="at least as deep"):
        grow(deep.state_dict(), tiny, vocab, seed=1)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    stage = Stage(steps=100, warmup=10, decay=0.5)
    assert stage.rate_at(0) == pytest.approx(0.1)
    assert stage.rate_at(40) == 1.0
    assert stage.rate_at(75) == pytest.approx(0.5)


def test_training_never_meets_a_held_out_seed(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def row(self: Sampler, seed: int) -> tuple[np.ndarray, ...]:
        seen.append(seed)
        return (np.zeros(1),) * 8

    monkeypatch.setattr(Sampler, "_row", row)
    sampler = Sampler(tokenizer, ("target",), 4, seed=123)
    for step in (0, 10**6, 10**9):
        sampler[step]
    assert len(seen) == 12
    assert max(seen) < HELD_OUT
