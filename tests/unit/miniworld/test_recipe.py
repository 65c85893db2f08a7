"""The walk through the recipe: both checkpoints come out, small enough, and train further."""

from pathlib import Path

import pytest
import torch

from lvspec_sglang.miniworld import recipe
from lvspec_sglang.miniworld.checkpoint import load_model
from lvspec_sglang.miniworld.train import Stage

ONE = Stage(steps=1, batch=1, warmup=1)
LIMIT = 30e6


def test_the_recipe_ends_with_the_pair() -> None:
    names = [chapter.name for chapter in recipe.RECIPE]
    assert {"target", "draft"} <= set(names)
    assert all(c.after in names[:i] for i, c in enumerate(recipe.RECIPE) if c.after)


def test_a_short_walk_writes_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = (
        recipe.Chapter("draft", 2, "", ONE),
        recipe.Chapter("target", 14, "draft", ONE),
    )
    monkeypatch.setattr(recipe, "RECIPE", short)
    lines: list[str] = []
    for _ in range(2):
        recipe.make_pair(tmp_path, tmp_path / "run", compiled=False, log=lines.append)
    assert sum(line.startswith("step 1/1") for line in lines) == 2, "finished chapters ran again"
    size = 0
    for name, least, most in (("target", 8e6, 12e6), ("draft", 1e6, 2e6)):
        model, _ = load_model(tmp_path / name)
        assert least <= sum(weight.numel() for weight in model.parameters()) <= most
        size += sum(file.stat().st_size for file in (tmp_path / name).iterdir())
    assert size < LIMIT


def test_a_checkpoint_trains_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "RECIPE", (recipe.Chapter("draft", 2, "", ONE),))
    monkeypatch.setattr(recipe, "MODEL_SIZES", {"draft": recipe.MODEL_SIZES["draft"]})
    recipe.make_pair(tmp_path / "a", tmp_path / "run", compiled=False, log=lambda line: None)
    recipe.continue_pair(
        tmp_path / "a",
        tmp_path / "b",
        tmp_path / "run",
        steps=1,
        names=("draft",),
        compiled=False,
        log=lambda line: None,
    )
    before, after = (load_model(tmp_path / side / "draft")[0] for side in "ab")
    assert not torch.equal(
        before.language_model.embed_tokens.weight, after.language_model.embed_tokens.weight
    )
