"""The first half of a round: drafted, plain, and drafted again."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lvspec_sglang import drafting as drafting_module
from lvspec_sglang import ranks
from lvspec_sglang.config import DraftLengthConfig
from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.draft.model import Prompt
from lvspec_sglang.drafting import Drafting

STEPS, ROW, LENGTH = 3, 1, 6


class Following:
    """One request."""

    steps = STEPS

    def __init__(self) -> None:
        slots = torch.arange(40, dtype=torch.int32).view(2, 20)
        view = DraftKVView(slots, torch.zeros_like(slots), slots=40)
        view.begin(ROW, torch.arange(LENGTH), LENGTH, rope_delta=0)
        view.valid[:] = True
        self.draft = SimpleNamespace(view=view, owns_kv=True)
        prompt = Prompt(torch.arange(100, 100 + LENGTH), torch.arange(LENGTH), None, (), None, 0)
        self.by_row = {ROW: SimpleNamespace(prompt=prompt)}

    def of(self, reqs: list[Any]) -> list[Any]:
        return [self.by_row[req.kv.req_pool_idx] for req in reqs]


class Scripted(Drafting):
    """Drafts what no model had to say."""

    def __init__(self, following: Following, config: DraftLengthConfig) -> None:
        super().__init__(following, config, 10, torch.device("cpu"))  # type: ignore[arg-type]

    def tokens(self, batch: Any, length: int) -> torch.Tensor:
        return torch.tensor([[1, 2, 3]])[:, :length]


@pytest.fixture(autouse=True)
def prefilled(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, Prompt]]:
    """What the draft was to prefill whole, call by call."""
    calls: list[dict[int, Prompt]] = []

    def remember(following: Following, reqs: list[Any], whole: dict[int, Prompt]) -> bool:
        calls.append(whole)
        return bool(whole)

    monkeypatch.setattr(drafting_module, "catch_up", remember)
    return calls


def batch(length: int, bonus: int) -> Any:
    return SimpleNamespace(
        reqs=[SimpleNamespace(kv=SimpleNamespace(req_pool_idx=ROW))],
        req_pool_indices=torch.tensor([ROW]),
        seq_lens=torch.tensor([length]),
        spec_info=SimpleNamespace(bonus_tokens=torch.tensor([bonus])),
    )


def test_plain_rounds_between_drafted_ones(
    monkeypatch: pytest.MonkeyPatch, prefilled: list[dict[int, Prompt]]
) -> None:
    monkeypatch.setattr(ranks, "first_decision", lambda decision: decision)
    following = Following()
    config = DraftLengthConfig(measure=True, run=1, trial=1)
    drafting = Scripted(following, config)
    chains = []
    for length, bonus in ((6, 50), (8, 51), (10, 52)):
        asked = batch(length, bonus)
        drafted = drafting.draft(asked)
        chains.append(drafted.chain.tolist())
        assert drafted.length == len(chains[-1][0]) - 1
        assert not following.draft.view.valid[20 + length]
        drafting.started(asked, drafted)
        drafting.length.finished([0])
    # Each length is tried for a round.
    assert chains == [[[50, 1, 2, 3]], [[51, 1]], [[52]]]
    assert prefilled == [{}, {}]
    for length in range(11, 30):
        if prefilled[-1]:
            break
        asked = batch(length, 54)
        drafting.started(asked, drafted := drafting.draft(asked))
        drafting.length.finished([0])
    context = prefilled[-1][ROW]
    # The prompt, two bonus tokens with an accepted draft each, what was fed since.
    assert context.ids[:11].tolist() == [*range(100, 106), 50, 1, 51, 1, 52]
    assert len(context.ids) == len(context.kept)
    assert drafted.prefill_seconds is not None and drafted.prefill_seconds() >= 0


def test_a_short_chain_is_padded_to_the_width_of_the_forward() -> None:
    following = Following()
    drafting = Scripted(following, DraftLengthConfig(above=0))
    drafting.verify_width = lambda batch, tokens: STEPS + 1
    plain = drafting.draft(batch(LENGTH, 50))
    assert (plain.length, plain.chain.tolist()) == (0, [[50, 50, 50, 50]])
    drafting.length.next = lambda batch: 1  # type: ignore[method-assign]
    short = drafting.draft(batch(LENGTH, 50))
    assert (short.length, short.chain.tolist()) == (1, [[50, 1, 50, 50]])
    # The target writes all of it.
    assert not following.draft.view.valid[20 + LENGTH : 20 + LENGTH + STEPS + 1].any()
