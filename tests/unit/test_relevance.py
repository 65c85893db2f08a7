import pytest
import torch

from lvspec_sglang.relevance import SCORERS, cosine, make_scorer
from lvspec_sglang.relevance.attention import (
    AttentionFocus,
    AttentionMass,
    middle_third,
    visual_attention,
)
from lvspec_sglang.relevance.cosine import CosineTop


def test_mass_and_focus_of_each_head() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 10)
    logits[:, 0, 7:] = float("-inf")
    visual = torch.zeros(10, dtype=torch.bool)
    visual[2:5] = visual[6] = True
    mass, focus = visual_attention(logits, visual)
    share = logits.softmax(dim=-1)[..., visual]
    torch.testing.assert_close(mass, share.sum(dim=-1).T)
    p = share / share.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(focus, (p * (p * 4).log()).sum(dim=-1).T)


def test_attention_that_lies_flat_has_no_focus_and_on_one_token_the_most() -> None:
    visual = torch.arange(8) < 4
    flat, sharp = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    sharp[..., 2] = 60.0
    assert abs(float(visual_attention(flat, visual)[1])) < 1e-6
    torch.testing.assert_close(visual_attention(sharp, visual)[1], torch.tensor([[4.0]]).log())


def test_parts_merged_by_log_sum_exp_give_the_whole() -> None:
    """What a backend with two planned calls does: attention of the parts, merged by their LSEs."""
    torch.manual_seed(1)
    logits, values = torch.randn(2, 3, 8), torch.randn(2, 8, 5)
    visual = torch.arange(8) < 3
    parts = [(logits[..., part], values[:, part]) for part in (visual, ~visual)]
    lses = torch.stack([part.logsumexp(dim=-1) for part, _ in parts])
    weights = (lses - lses.logsumexp(dim=0)).exp()[..., None]
    merged = sum(w * (p.softmax(dim=-1) @ v) for w, (p, v) in zip(weights, parts, strict=True))
    torch.testing.assert_close(merged, logits.softmax(dim=-1) @ values)
    torch.testing.assert_close(weights[0, ..., 0].T, visual_attention(logits, visual)[0])


def test_without_a_video_both_are_zero() -> None:
    for part in visual_attention(torch.randn(2, 3, 4), torch.zeros(4, dtype=torch.bool)):
        assert part.tolist() == [[0.0] * 2] * 3


def test_layers_are_averaged_and_forgotten() -> None:
    mass, focus = torch.tensor([[0.0, 0.4], [1.0, 0.0]]), torch.tensor([[9.0, 1.0], [2.0, 3.0]])
    for scorer, want in (
        (AttentionMass((4, 5)), [[0.35], [0.35]]),
        (AttentionFocus((4, 5)), [[0.35], [0.6]]),
    ):
        for _ in range(2):
            scorer.observe(mass[None], focus[None])
            scorer.observe(mass.flip(0)[None], torch.ones(1, 2, 2))
            scores = scorer.scores(torch.tensor([0, 1]), 1, 0)
            torch.testing.assert_close(scores, torch.tensor(want))
        scorer.observe(torch.stack([mass, mass.flip(0)]), torch.stack([focus, torch.ones(2, 2)]))
        scores = scorer.scores(torch.tensor([0, 1]), 1, 0)
        torch.testing.assert_close(scores, torch.tensor(want))


def test_the_middle_third() -> None:
    assert middle_third(14) == (4, 5, 6, 7, 8)
    assert middle_third(28) == (9, 11, 13, 15, 17)
    assert middle_third(64) == (21, 24, 27, 30, 33, 36, 39)
    assert middle_third(1) == (0,)
    assert make_scorer("focus", (), 28).layers == middle_third(28)
    assert make_scorer("cosine", (), 28).layers == (27,)
    assert make_scorer("attention", (3, 5), 28).layers == (3, 5)


@pytest.mark.parametrize("block", [1, 7, 10, 20, 4096])
def test_cosine_averages_the_largest_with_the_video_of_the_row(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(cosine, "BLOCK", block)
    torch.manual_seed(2)
    hidden, queries = torch.randn(60, 8), torch.randn(4, 8)
    table = torch.randperm(60).view(3, 20).int()
    visual = torch.zeros(3, 20, dtype=torch.bool)
    visual[1, 2:16] = True
    visual[2, 3:6] = True
    scorer = CosineTop((5, 6))
    scorer.attach(60, 8, 12, torch.float32, table, visual)
    scorer.remember(torch.arange(60), hidden)
    scorer.hear(queries)
    scores = scorer.scores(torch.tensor([2, 1]), 2, 16)
    for row, place, query in ((2, 0, 0), (2, 1, 1), (1, 0, 2), (1, 1, 3)):
        keys = hidden[table[row][visual[row]].long()]
        cosines = torch.cosine_similarity(queries[query][None], keys)
        want = cosines.topk(min(10, len(cosines))).values.mean()
        torch.testing.assert_close(scores[[2, 1].index(row), place], want)
    assert scorer.scores(torch.tensor([0, 0]), 2, 20).tolist() == [[0.0, 0.0]] * 2


def test_the_control_knows_nothing_and_leaves_sampling_alone() -> None:
    state = torch.get_rng_state()
    scorer = SCORERS["random"]((1, 2))
    assert scorer.layers == ()
    scores = scorer.scores(torch.arange(50), 11, 0)
    assert scores.shape == (50, 11)
    assert 0.4 < float(scores.mean()) < 0.6
    assert torch.equal(state, torch.get_rng_state())
