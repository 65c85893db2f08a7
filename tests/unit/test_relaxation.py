import math

import pytest
import torch
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from lvspec_sglang.config import LVSpecConfig, RelaxConfig
from lvspec_sglang.relaxation import Relaxation
from lvspec_sglang.verify.guards import NEGATIONS, guarded_tokens
from lvspec_sglang.verify.quantile import MIN_HELD
from lvspec_sglang.verify.rule import Kind, accept

VOCAB, EOS = 20, 9
STEPS = 3
ROWS = torch.tensor([1])


class Words:
    """A tokenizer of twenty words."""

    texts = (
        "a", " the", " Not", "7", " red4", " before", "n't", " cat", "<s>", "<e>",
        *(f"w{chr(97 + i)}" for i in range(8)), " Three", " one",
    )  # fmt: skip
    all_special_ids = (8, EOS)

    def __len__(self) -> int:
        return len(self.texts)

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def batch_decode(self, ids: list[list[int]]) -> list[str]:
        return ["".join(self.texts[token] for token in one) for one in ids]


class FixedScores:
    """A scorer that gives what it is told."""

    reads = "nothing"
    layers: tuple[int, ...] = ()
    listening = True

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def observe(self, mass: torch.Tensor, focus: torch.Tensor) -> None: ...

    def scores(self, rows: torch.Tensor, width: int, reach: int) -> torch.Tensor:
        return torch.tensor([self.values])


def make(relax: RelaxConfig, scores: list[float]) -> Relaxation:
    guarded = guarded_tokens(Words(), VOCAB, LVSpecConfig().guards)
    relaxation = Relaxation("predicting", FixedScores(scores), 3, 40, guarded)
    relaxation.begin(1, STEPS, relax, [(2, 5)], [7])
    return relaxation


def test_guards_by_class() -> None:
    guarded = guarded_tokens(Words(), VOCAB + 4, ("digits", "negations", "order"))
    assert guarded.nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 8, EOS, 18]
    only = guarded_tokens(Words(), VOCAB, ("digits",))
    assert only.nonzero().flatten().tolist() == [3, 4, 8, EOS, 18]


def test_qwens_contractions_are_guarded_in_the_parts_it_cuts_them_into() -> None:
    cut = Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    for word in (f"{verb}n't" for verb in "is are was were do does did could would ca wo".split()):
        parts = [part for part, _ in cut.pre_tokenize_str(f"it {word} red")][1:-1]
        assert len(parts) == 2
        assert {part.strip() for part in parts} & NEGATIONS, word


def test_nothing_is_known_of_a_forbidden_token_or_of_an_overflow() -> None:
    relaxation = make(RelaxConfig(loose_ratio=1.0), [0.1, float("nan"), 0.3, 0.2])
    logits = torch.zeros(4, VOCAB)
    logits[2, 10] = -torch.inf
    drafted, target = torch.tensor([[10, 10, 10]]), torch.tensor([[11, 11, 11, 11]])
    evidence = relaxation.evidence(
        ROWS, STEPS + 1, drafted, target, logits, reach=40, entropy=False
    )
    assert evidence.guarded.tolist() == [[False, True, True]]
    relaxation.settle(evidence, torch.tensor([4]))
    assert int(relaxation.ring.count[1]) == 3
    assert not relaxation.ring.scores.isnan().any()


def test_one_guarded_side_is_enough() -> None:
    relaxation = make(RelaxConfig(loose_ratio=1.0), [0.0] * 4)
    drafted, target = torch.tensor([[3, 10, 10]]), torch.tensor([[11, 3, 11, 11]])
    evidence = relaxation.evidence(
        ROWS, STEPS + 1, drafted, target, torch.zeros(4, VOCAB), reach=40, entropy=False
    )
    assert evidence.guarded.tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("query", "scores"), [("predicting", slice(3)), ("consuming", slice(1, 4))]
)
@pytest.mark.parametrize("steps", [1, 3])
def test_which_query_scores_a_drafted_token(query: str, scores: slice, steps: int) -> None:
    """Of a forward that may be wider than what was drafted."""
    given = [0.1, 0.2, 0.3, 0.4]
    relaxation = Relaxation(query, FixedScores(given), 3, 40, torch.zeros(VOCAB, dtype=torch.bool))
    drafted, target = torch.full((1, steps), 10), torch.full((1, steps + 1), 11)
    logits = torch.zeros(steps + 1, VOCAB)
    evidence = relaxation.evidence(
        ROWS, STEPS + 1, drafted, target, logits, reach=40, entropy=False
    )
    assert evidence.relevance[0].tolist() == pytest.approx(given[scores][:steps])


def test_a_row_knows_its_visual_positions() -> None:
    assert make(RelaxConfig(), [0.3] * 4).visual[1].nonzero().flatten().tolist() == [2, 3, 4]


def test_a_round_is_loose_below_the_running_quantile_only() -> None:
    relaxation = make(RelaxConfig(loose_ratio=0.5), [0.1, 0.9, 0.1, 0.5])
    drafted, target = torch.tensor([[10, 11, 12]]), torch.tensor([[13, 11, 14, 15]])
    logits = torch.zeros(4, VOCAB)

    def decide() -> list[int]:
        evidence = relaxation.evidence(
            ROWS, STEPS + 1, drafted, target, logits, reach=40, entropy=False
        )
        verdict = accept(drafted, target, relaxation.policy(ROWS), evidence)
        relaxation.settle(evidence, verdict.accept_lens)
        return verdict.kinds[0, : int(verdict.accept_lens)].tolist()

    for held in range(MIN_HELD):
        assert int(relaxation.ring.count[1]) == held
        assert decide() == [Kind.TARGET], "nothing is loose before enough scores are known"
    assert decide() == [Kind.LOOSE, Kind.MATCH, Kind.LOOSE, Kind.BONUS]


def test_a_stop_token_is_never_relaxed_on_either_side() -> None:
    relaxation = make(RelaxConfig(loose_ratio=1.0), [0.0] * 4)
    logits = torch.zeros(4, VOCAB)
    for drafted, target in (([[7, 10, 10]], [[11] * 4]), ([[10] * 3], [[7, 11, 11, 11]])):
        evidence = relaxation.evidence(
            ROWS,
            STEPS + 1,
            torch.tensor(drafted),
            torch.tensor(target),
            logits,
            reach=40,
            entropy=False,
        )
        assert evidence.guarded[0].tolist() == [True, False, False]


def test_evidence_of_probability_and_entropy() -> None:
    relaxation = make(RelaxConfig(rule="fly"), [0.0] * 4)
    logits = torch.zeros(4, VOCAB)
    logits[0, 10] = 2.0
    logits[1, 11] = 50.0
    evidence = relaxation.evidence(
        ROWS,
        STEPS + 1,
        torch.tensor([[10, 12, 12]]),
        torch.tensor([[13, 11, 13, 13]]),
        logits,
        reach=40,
        entropy=True,
    )
    torch.testing.assert_close(evidence.log_ratio[0], torch.tensor([2.0, -50.0, 0.0]))
    likely, rest = math.exp(2) / (math.exp(2) + VOCAB - 1), 1 / (math.exp(2) + VOCAB - 1)
    unsure = -likely * math.log(likely) - 2 * rest * math.log(rest)
    even = 3 / VOCAB * math.log(VOCAB)
    torch.testing.assert_close(evidence.entropy[0], torch.tensor([unsure, 0.0, even]))


def test_reusing_a_row_forgets_its_last_owner() -> None:
    relaxation = make(RelaxConfig(loose_ratio=0.7, draft_shift=2, floor=0.5), [0.3] * 4)
    drafted, target = torch.tensor([[10, 11, 12]]), torch.tensor([[10, 11, 12, 13]])
    evidence = relaxation.evidence(
        ROWS, STEPS + 1, drafted, target, torch.zeros(4, VOCAB), reach=40, entropy=False
    )
    relaxation.settle(evidence, torch.tensor([4]))
    relaxation.begin(1, 3, RelaxConfig(), [], [])
    assert int(relaxation.ring.count[1]) == 0
    assert not bool(relaxation.visual[1].any())
    policy = relaxation.policy(ROWS)
    assert policy.ratio.item() == 0.0
    assert (policy.log_floor.item(), policy.draft_shift.item()) == (-math.inf, 0)
    assert not bool((relaxation.stops[1] >= 0).any())


def test_the_visual_floor_is_at_least_the_floor() -> None:
    relax = RelaxConfig(loose_ratio=0.7, floor=0.5, visual_floor=0.2)
    policy = make(relax, [0.3] * 4).policy(ROWS)
    assert policy.log_floor == policy.log_visual_floor == torch.tensor(0.5).log()


def test_a_measured_target_is_compared_with_its_reference_from_the_first_token_on() -> None:
    guarded = torch.zeros(VOCAB, dtype=torch.bool)
    scores = FixedScores([0.25, 0.3, 0.1, 0.5])
    relaxation = Relaxation("predicting", scores, 3, 40, guarded, [0.0, 0.1, 0.2, 0.25, 0.9])
    relaxation.begin(1, 3, RelaxConfig(loose_ratio=0.8), [(2, 5)], [7])
    drafted, target = torch.tensor([[10, 11, 12]]), torch.tensor([[13, 14, 15, 16]])
    logits = torch.zeros(4, VOCAB)
    for _ in range(2):
        evidence = relaxation.evidence(
            ROWS, STEPS + 1, drafted, target, logits, reach=40, entropy=False
        )
        verdict = accept(drafted, target, relaxation.policy(ROWS), evidence)
        relaxation.settle(evidence, verdict.accept_lens)
        assert verdict.threshold.item() == 0.25, "its own scores change nothing"
        assert verdict.kinds[0, :2].tolist() == [Kind.LOOSE, Kind.TARGET]
