"""The draft's context of the requests in flight, brought up to date before a round."""

from collections.abc import Iterable, Mapping

import torch
from sglang.srt.managers.schedule_batch import Req

from lvspec_sglang.draft.batches import Segment
from lvspec_sglang.draft.model import Prompt
from lvspec_sglang.following import Following


class CatchUp:
    """Prefills what the draft lacks of requests that ``following`` follows."""

    def __init__(self, following: Following) -> None:
        self.following = following

    def __call__(self, reqs: Iterable[Req], whole: Mapping[int, Prompt]) -> bool:
        """Prefill the draft's context of requests that are new or whose slots were swapped.

        It is done before a request's first round rather than after its prefill: by then the radix
        cache has given all users of a video the same slots, and the first token is on its way.

        Args:
            whole: by row, the context of requests the draft has sat out some rounds of.

        Returns whether anything was prefilled.
        """
        rows = []
        for req in reqs:
            followed = self.following.by_row.get(req.kv.req_pool_idx)
            if followed is None:
                continue
            row, cached_len = req.kv.req_pool_idx, req.kv.cache_protected_len
            if followed.cached_len != cached_len or row in whole:
                followed.cached_len = cached_len
                rows.append(row)
        prefilled = False
        prompts = {row: whole.get(row, self.following.by_row[row].prompt) for row in rows}
        while rows:
            rows, wrote = self._prefill(rows, prompts)
            prefilled |= wrote
        return prefilled

    def _prefill(self, rows: list[int], prompts: dict[int, Prompt]) -> tuple[list[int], bool]:
        """Prefill ``rows``; return those that first need what another of them now writes."""
        draft = self.following.draft
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
