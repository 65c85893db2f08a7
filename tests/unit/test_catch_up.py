"""What the draft prefills before a round, and when it does not even look."""

from types import SimpleNamespace
from typing import Any

import torch

from lvspec_sglang.catch_up import catch_up
from lvspec_sglang.draft.batches import Segment
from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.draft.model import DraftModel, Prompt

LENGTH = 6


class Draft:
    """Notes what it is asked, with the view of a real draft; rows 0 and 1 share their slots."""

    def __init__(self) -> None:
        slots = torch.arange(20, dtype=torch.int32).repeat(2, 1)
        self.view = DraftKVView(slots, torch.zeros_like(slots), slots=20)
        self.asked: list[int] = []
        self.prefilled: list[list[Segment]] = []

    def stale_segment(self, row: int, prompt: Prompt) -> Segment:
        self.asked.append(row)
        return DraftModel.stale_segment(self, row, prompt)  # type: ignore[arg-type]

    def prefill(self, segments: list[Segment], prompts: dict[int, Prompt]) -> None:
        self.prefilled.append(segments)
        for row, start, stop in segments:
            self.view.mark_written(self.view.draft_table[row, start:stop].long())


def request(draft: Draft, row: int) -> tuple[Any, Any]:
    draft.view.begin(row, torch.arange(LENGTH), LENGTH, rope_delta=0)
    prompt = Prompt(torch.arange(LENGTH), torch.arange(LENGTH), None, (), None, 0)
    req = SimpleNamespace(kv=SimpleNamespace(req_pool_idx=row, cache_protected_len=5))
    return req, SimpleNamespace(prompt=prompt, cached_len=None)


def test_a_row_is_looked_at_once_until_its_slots_are_swapped_or_it_sat_out() -> None:
    draft = Draft()
    req, followed = request(draft, 0)
    following: Any = SimpleNamespace(draft=draft, by_row={0: followed})
    assert catch_up(following, [req], {})
    assert draft.prefilled == [[Segment(0, 0, LENGTH)]]
    assert not catch_up(following, [req], {}) and draft.asked == [0]
    req.kv.cache_protected_len = 6
    assert not catch_up(following, [req], {}) and draft.asked == [0, 0]
    longer = followed.prompt._replace(ids=torch.arange(8), kept=torch.arange(8))
    assert catch_up(following, [req], {0: longer})
    assert draft.prefilled[1:] == [[Segment(0, LENGTH, 8)]]


def test_what_two_requests_lack_is_prefilled_once() -> None:
    draft = Draft()
    pairs = [request(draft, row) for row in (0, 1)]
    by_row = {row: followed for row, (_, followed) in enumerate(pairs)}
    following: Any = SimpleNamespace(draft=draft, by_row=by_row)
    assert catch_up(following, [req for req, _ in pairs], {})
    assert draft.prefilled == [[Segment(0, 0, LENGTH)]]


def test_a_request_nobody_drafts_for_is_left_out() -> None:
    draft = Draft()
    req, _ = request(draft, 0)
    following: Any = SimpleNamespace(draft=draft, by_row={})
    assert not catch_up(following, [req], {})
    assert draft.asked == []
