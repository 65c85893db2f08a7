"""What a request brings to its row, and what it leaves there."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.managers.schedule_batch import MM_PAD_SHIFT_VALUE

from lvspec_sglang.config import LVSpecConfig
from lvspec_sglang.draft.kept import KeptTokens
from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.draft.vision import Span
from lvspec_sglang.following import Following
from lvspec_sglang.pruning import Grid
from lvspec_sglang.relaxation import Relaxation
from lvspec_sglang.relevance import make_scorer

ROWS, WIDTH, PAD = 4, 40, MM_PAD_SHIFT_VALUE


class Family:
    spill = 0

    def spans(self, mm_inputs: Any) -> list[Span]:
        return mm_inputs.spans

    def grid(self, item: Any, tokens: int) -> Grid:
        return Grid(tokens, 1, 1)


class Request:
    """Four tokens, a video of eight, four, a video of eight, four."""

    def __init__(self, row: int, videos: tuple[int, int] = (1, 2), **more: Any) -> None:
        first, second = videos
        self.kv = SimpleNamespace(req_pool_idx=row, cache_protected_len=24)
        self.ids = [*range(4), *[PAD + first] * 8, *range(4), *[PAD + second] * 8, *range(4)]
        items = [
            SimpleNamespace(hash=h, is_video=lambda: True, precomputed_embeddings=None)
            for h in videos
        ]
        spans = [Span(0, 4, 12, 0), Span(1, 16, 24, 0)]
        self.multimodal_inputs = SimpleNamespace(
            mm_items=items, spans=spans, mrope_positions=None, mrope_position_delta=None
        )
        self.sampling_params = SimpleNamespace(
            stop_token_ids=None, custom_params=None, logit_bias=None, frequency_penalty=0,
            presence_penalty=0, repetition_penalty=1.0, min_new_tokens=0,
        )  # fmt: skip
        self.rid = self.extra_key = self.cache_salt = self.custom_logit_processor = None
        self.eos_token_ids, self.grammar, self.return_logprob = {9}, None, False
        self.ended = False
        vars(self).update(more)

    def get_fill_ids(self) -> list[int]:
        return self.ids

    def finished(self) -> bool:
        return self.ended


@pytest.fixture
def following() -> Following:
    slots = torch.arange(ROWS * WIDTH, dtype=torch.int32).view(ROWS, WIDTH)
    view = DraftKVView(slots, torch.zeros_like(slots), slots=ROWS * WIDTH)
    draft: Any = SimpleNamespace(view=view, embedder=SimpleNamespace(family=Family()))
    runner = SimpleNamespace(max_total_num_tokens=ROWS * WIDTH, device="cpu")
    config = LVSpecConfig(pruning="uniform", keep=0.25, keep_at_least=1)
    guarded = torch.zeros(10, dtype=torch.bool)
    scorer = make_scorer("random", (), 4)
    relaxation = Relaxation("predicting", scorer, ROWS, WIDTH, guarded)
    kept = KeptTokens(config, runner, draft.embedder.family)
    return Following(draft, kept, relaxation, steps=3)


def begin(following: Following, request: Any) -> None:
    following.begin(request)


def test_only_equal_prompts_in_one_key_space_share_a_prefix(following: Following) -> None:
    """Whoever shares one reads another's KV, so what differs anywhere before its end counts."""
    ours = Request(0)
    same = Request(1)
    others = [
        Request(1, (1, 3)), Request(1, (3, 2)), Request(1, cache_salt="b"),
        Request(1, extra_key="b"),
    ]  # fmt: skip
    begin(following, ours)
    for other, equal in [(same, True), *((other, False) for other in others)]:
        begin(following, other)
        mine, its = (context.prefix for context in following.contexts([ours, other]))
        assert mine is not None and its is not None
        assert (mine == its) == equal


def test_a_request_that_ended_is_let_go(following: Following) -> None:
    """Also one that ended with its first token, before any round."""
    first = Request(0)
    begin(following, first)
    begin(following, Request(1, (3, 4)))
    assert set(following.by_row) == {0, 1}
    first.ended = True
    begin(following, Request(2, (5, 6)))
    assert set(following.by_row) == {1, 2}


def test_draft_kv_of_another_choice_is_taken_for_unwritten(following: Following) -> None:
    """The radix cache held a video whose choice was forgotten; everybody else's KV stays."""
    view = following.draft.view
    view.valid[:] = True
    following.kept.table.put((1, 8), 8, torch.tensor([0, 5]), ())
    begin(following, Request(1))
    fresh = torch.zeros_like(view.valid)
    fresh[WIDTH + 16 : WIDTH + 24] = True
    assert torch.equal(~view.valid, fresh)
