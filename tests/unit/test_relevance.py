import torch

from lvspec_sglang.relevance import SCORERS
from lvspec_sglang.relevance.attention import AttentionMass, middle_third, visual_mass


def test_mass_is_the_softmax_on_visual_keys() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 10)
    logits[:, 0, 7:] = float("-inf")
    visual = torch.zeros(10, dtype=torch.bool)
    visual[2:5] = visual[8] = True
    want = logits.softmax(dim=-1)[..., visual].sum(dim=-1).mean(dim=0)
    torch.testing.assert_close(visual_mass(logits, visual), want)


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
    torch.testing.assert_close(weights[0, ..., 0].mean(dim=0), visual_mass(logits, visual))


def test_without_a_video_the_mass_is_zero() -> None:
    assert visual_mass(torch.randn(2, 3, 4), torch.zeros(4, dtype=torch.bool)).tolist() == [0.0] * 3


def test_layers_are_averaged_and_forgotten() -> None:
    scorer = AttentionMass((4, 5))
    for _ in range(2):
        scorer.observe(4, torch.tensor([0.0, 1.0, 0.2, 0.4]))
        scorer.observe(5, torch.tensor([1.0, 1.0, 0.0, 0.2]))
        scores = scorer.scores(2, 2, torch.device("cpu"))
        torch.testing.assert_close(scores, torch.tensor([[0.5, 1.0], [0.1, 0.3]]))


def test_the_middle_third() -> None:
    assert middle_third(28) == tuple(range(9, 18))
    assert middle_third(1) == (0,)


def test_the_control_knows_nothing_and_leaves_sampling_alone() -> None:
    state = torch.get_rng_state()
    scorer = SCORERS["random"]((1, 2))
    assert scorer.layers == ()
    scores = scorer.scores(50, 11, torch.device("cpu"))
    assert scores.shape == (50, 11)
    assert 0.4 < float(scores.mean()) < 0.6
    assert torch.equal(state, torch.get_rng_state())
