"""Which tokens each pruner keeps, and that a prompt cut into chunks is scored like a whole one."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lvspec_sglang.pruning import PRUNERS, Grid, Scores, budget
from lvspec_sglang.pruning import verifier as verifier_module
from lvspec_sglang.pruning.unbiased import AlignmentChange, AlignmentFall
from lvspec_sglang.pruning.uniform import Uniform
from lvspec_sglang.pruning.verifier import (
    AttentionReceived,
    VerifierGuided,
    attention_received,
)

grids = st.builds(Grid, st.integers(1, 12), st.integers(1, 14), st.integers(1, 14))
shares = st.floats(0.01, 1.0)


@settings(deadline=None)
@given(grids, shares, st.sampled_from(["uniform", "verifier", "unbiased"]), st.integers(0, 99))
def test_a_pruner_keeps_its_budget_in_order(grid: Grid, keep: float, name: str, seed: int) -> None:
    scores = torch.rand(grid.tokens, generator=torch.Generator().manual_seed(seed))
    kept = PRUNERS[name]().choose(grid, keep, scores)
    assert len(kept) == budget(grid.tokens, keep)
    assert kept.dtype == torch.int64
    assert bool((kept[1:] > kept[:-1]).all())
    assert int(kept[0]) >= 0 and int(kept[-1]) < grid.tokens


def test_none_keeps_everything() -> None:
    assert PRUNERS["none"]().choose(Grid(2, 3, 4), 0.1, None).tolist() == list(range(24))


@pytest.mark.parametrize(("tokens", "keep", "kept"), [(10, 0.1, 1), (11, 0.1, 2), (3, 1.0, 3)])
def test_the_budget_is_rounded_up(tokens: int, keep: float, kept: int) -> None:
    assert budget(tokens, keep) == kept


@settings(deadline=None)
@given(st.integers(4, 24), st.integers(6, 16), st.integers(6, 16), st.floats(0.1, 0.5))
@example(22, 6, 14, 0.125)
@example(4, 10, 16, 0.1)
@example(24, 16, 6, 0.125)
def test_uniform_is_even_in_space_and_time(
    frames: int, rows: int, columns: int, keep: float
) -> None:
    """Every half of the video, cut along any axis, holds its share."""
    grid = Grid(frames, rows, columns)
    kept = Uniform().choose(grid, keep)
    at = torch.stack(torch.unravel_index(kept, tuple(grid)))
    for axis, size in enumerate(grid):
        share = (at[axis] < size // 2).sum() / len(kept)
        assert abs(float(share) - (size // 2) / size) < 0.75 * len(kept) ** -0.5


def test_uniform_does_not_line_up_in_columns() -> None:
    at = torch.unravel_index(Uniform().choose(Grid(1, 14, 14), 14 / 196), (14, 14))
    assert len(at[0].unique()) >= 4 and len(at[1].unique()) >= 4


def test_verifier_keeps_the_top_until_two_fifths_of_the_mass_and_fills_evenly() -> None:
    scores = torch.full((100,), 0.5)
    scores[[40, 41]] = 20.0  # 40 of 89: the two hold more than 40 %, one of them less
    kept = VerifierGuided().choose(Grid(1, 10, 10), 0.1, scores)
    assert {40, 41} <= set(kept.tolist())
    gaps = [k for k in kept.tolist() if k not in (40, 41)]
    assert max(b - a for a, b in pairwise(gaps)) <= 16
    assert min(b - a for a, b in pairwise(gaps)) >= 11


def test_verifier_never_exceeds_the_budget_whatever_the_mass() -> None:
    scores = torch.arange(50, 0, -1).float()
    assert VerifierGuided().choose(Grid(1, 5, 10), 0.1, scores).tolist() == [0, 1, 2, 3, 4]


def test_attention_received_is_that_of_a_full_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(7, 6, 8, generator=generator), torch.randn(30, 2, 8, generator=generator)
    positions = torch.tensor([3, 9, 10, 20, 27, 28, 29])
    logits = torch.einsum("qhd,nhd->hqn", q, k.repeat_interleave(3, dim=1)) * 0.3
    logits[:, torch.arange(30) > positions[:, None]] = float("-inf")
    want = logits.softmax(dim=-1).mean(dim=0).sum(dim=0)
    for most in (1 << 24, 6 * 30 * 2):
        monkeypatch.setattr(verifier_module, "MAX_LOGITS", most)
        torch.testing.assert_close(attention_received(q, k, positions, 0.3), want)


def chunked(kind: type[Scores], cuts: list[int], seed: int = 0) -> torch.Tensor:
    """Scores of a prompt of 40 tokens, 8 to 28 visual, two layers, prefilled in chunks."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.zeros(40, dtype=torch.bool)
    visual[8:28] = True
    scores = kind(visual)
    layers = kind.layers(8) if kind.reads == "hidden" else (0, 1)
    vectors = {layer: torch.randn(40, 4, 8, generator=generator) for layer in layers}
    keys = torch.randn(40, 2, 8, generator=generator)
    edges = [0, *cuts, 40]
    for start, stop in pairwise(edges):
        for layer in layers:
            part = vectors[layer][start:stop]
            if kind.reads == "hidden":
                scores.observe(layer, start, part.flatten(1), None, 1.0)
            else:
                scores.observe(layer, start, part, lambda stop=stop: keys[:stop], 0.4)
    return scores.of(torch.arange(8, 28))


@pytest.mark.parametrize("cuts", [[8], [13], [5, 17, 31], [28, 29, 30, 39]])
@pytest.mark.parametrize(
    ("kind", "pruner"),
    [(AttentionReceived, VerifierGuided()), (AlignmentFall, AlignmentChange())],
)
def test_a_prompt_in_chunks_gives_the_choice_of_a_whole_one(
    kind: type[Scores], pruner: VerifierGuided | AlignmentChange, cuts: list[int]
) -> None:
    whole, cut = chunked(kind, []), chunked(kind, cuts)
    torch.testing.assert_close(cut, whole)
    grid = Grid(5, 2, 2)
    assert pruner.choose(grid, 0.3, cut).tolist() == pruner.choose(grid, 0.3, whole).tolist()


def test_alignment_falls_where_a_token_turns_from_the_text() -> None:
    """Token 2 becomes the text's direction, token 3 leaves it, token 1 was there all along."""
    visual = torch.tensor([False, True, True, True, False])
    x, y = torch.eye(2)
    scores = AlignmentFall(visual)
    first, last = AlignmentFall.layers(8)
    scores.observe(first, 0, torch.stack([x, x, y, x, x]), None, 1.0)
    scores.observe(last, 0, torch.stack([x, x, x, y, x]), None, 1.0)
    assert scores.of(torch.tensor([1, 2, 3])).tolist() == [0.0, -2.0, 2.0]
    assert AlignmentChange().choose(Grid(1, 1, 3), 0.3, scores.of(torch.arange(1, 4))).tolist() == [
        2
    ]


def test_text_before_the_video_asks_nothing() -> None:
    visual = torch.tensor([False, True, True])
    scores = AttentionReceived(visual)
    scores.observe(0, 0, torch.randn(3, 2, 4), lambda: pytest.fail("keys were read"), 1.0)
    assert scores.of(torch.tensor([1, 2])).tolist() == [0.0, 0.0]
