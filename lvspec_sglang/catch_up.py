"""The draft's context of the requests in flight, brought up to date before a round."""

from collections.abc import Iterable, Mapping

import torch
from sglang.srt.managers.schedule_batch import Req

from lvspec_sglang.draft.batches import Segment
from lvspec_sglang.draft.model import DraftModel, Prompt
from lvspec_sglang.following import Following


def catch_up(following: Following, reqs: Iterable[Req], whole: Mapping[int, Prompt]) -> bool:
    """Prefill the draft's context of followed requests that are new or whose slots were swapped.

    It is done before a request's first round rather than after its prefill: by then the radix
    cache has given all users of a video the same slots, and the first token is on its way.

    Args:
        whole: by row, the context of requests the draft has sat out some rounds of.

    Returns whether anything was prefilled.
    """
    rows = []
    for req in reqs:
        row, cached_len = req.kv.req_pool_idx, req.kv.cache_protected_len
        followed = following.by_row.get(row)
        if followed is not None and (followed.cached_len != cached_len or row in whole):
            followed.cached_len = cached_len
            rows.append(row)
    prefilled = False
    prompts = {row: whole.get(row, following.by_row[row].prompt) for row in rows}
    while rows:
        rows, wrote = _prefill(following.draft, rows, prompts)
        prefilled |= wrote
    return prefilled


def _prefill(
    draft: DraftModel, rows: list[int], prompts: dict[int, Prompt]
) -> tuple[list[int], bool]:
    """Prefill ``rows``; return those that first need what another of them now writes."""
    claimed = torch.zeros_like(draft.view.valid)
    segments: list[Segment] = []
    waiting = []
    for row in rows:
        segment = draft.stale_segment(row, prompts[row])
        slots = draft.view.draft_table[row, segment.start : segment.stop].long()
        if segments and bool(claimed[slots].any()):
            waiting.append(row)
        elif segment.start < segment.stop:
            claimed[slots] = True
            segments.append(segment)
    if segments:
        draft.prefill(segments, prompts)
    return waiting, bool(segments)
