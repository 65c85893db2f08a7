"""The requests in flight: what of each the draft holds, and how far each is relaxed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from sglang.srt.managers.schedule_batch import Req

from lvspec_sglang.config import RelaxConfig, RequestConfig, parse_request
from lvspec_sglang.draft.batches import Segment
from lvspec_sglang.draft.model import DraftModel, Prompt
from lvspec_sglang.relaxation import MAX_STOP_TOKENS, Relaxation


@dataclass
class Followed:
    """A request whose context the draft holds in its row."""

    req: Req
    prompt: Prompt
    cached_len: int  # tokens of the row that belong to the radix cache, when last looked at
    config: RequestConfig


class Following:
    """Starts requests in their rows and notices when the radix cache gave one other slots.

    Attributes:
        default: the relaxation of a request that says nothing itself.
        can_relax: whether the target's attention reports what relaxing needs.
    """

    def __init__(self, draft: DraftModel, relaxation: Relaxation, steps: int) -> None:
        self.draft = draft
        self.relaxation = relaxation
        self.steps = steps
        self.default = RelaxConfig()
        self.can_relax = False
        self.by_row: dict[int, Followed] = {}
        self._parked: WeakKeyDictionary[Req, tuple[torch.Tensor, torch.Tensor]] = (
            WeakKeyDictionary()
        )

    def begin(self, req: Req) -> Segment | None:
        """Give a request whose prompt is complete its row; return what the draft must prefill."""
        row, ids, mm = req.kv.req_pool_idx, req.get_fill_ids(), req.multimodal_inputs
        delta = getattr(mm, "mrope_position_delta", None)
        rope_delta = 0 if delta is None else int(delta.flatten()[0])
        speculated = can_speculate(req)
        spans = self.draft.embedder.family.spans(mm) if mm is not None and speculated else []
        stops = {*(req.eos_token_ids or ()), *(req.sampling_params.stop_token_ids or ())}
        config = self._config(req, bool(spans), stops)
        relax = config.relax

        scores = self._scores_before(req, row)
        device = self.relaxation.limit.device
        kept = torch.arange(len(ids) if speculated else 0, device=device)
        self.draft.view.begin(row, kept, len(ids), rope_delta)
        self.relaxation.begin(
            row,
            self.steps if speculated else 0,
            relax,
            [(span.start, span.stop) for span in spans],
            [] if relax.strict else sorted(stops),
        )
        if scores is not None:
            self.relaxation.ring.put(row, scores)
        if not speculated:
            return None
        on_device = torch.tensor(ids, dtype=torch.int64).to(device)
        prompt = Prompt(on_device, kept, mm, rope_delta)
        self.by_row[row] = Followed(req, prompt, req.kv.cache_protected_len, config)
        return self.draft.stale_segment(row, prompt)

    def _scores_before(self, req: Req, row: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What a retracted request had scored, wherever it was; the row's last owner moves out."""
        ring = self.relaxation.ring
        owner = self.by_row.pop(row, None)
        if owner is not None:
            self._parked[owner.req] = ring.take(row)
        for other in [r for r, followed in self.by_row.items() if followed.req is req]:
            del self.by_row[other]
            return ring.take(other)
        return self._parked.pop(req, None)

    def _config(self, req: Req, sees: bool, stops: set[int]) -> RequestConfig:
        """Without a video, with a grammar or with log-probabilities a request is strict."""
        asked = (req.sampling_params.custom_params or {}).get("lvspec")
        config = parse_request(asked, self.default)
        free = req.grammar is None and not req.return_logprob and len(stops) <= MAX_STOP_TOKENS
        return config if self.can_relax and sees and free else replace(config, relax=RelaxConfig())

    def moved(self, reqs: Iterable[Req]) -> list[Segment]:
        """What the draft must prefill again of requests whose slots were swapped."""
        segments = []
        for req in reqs:
            followed = self.by_row.get(req.kv.req_pool_idx)
            if followed is not None and followed.cached_len != req.kv.cache_protected_len:
                followed.cached_len = req.kv.cache_protected_len
                segments.append(self.draft.stale_segment(req.kv.req_pool_idx, followed.prompt))
        return segments

    def prefill(self, segments: Iterable[Segment]) -> None:
        """Write the draft's KV where ``segments`` are not empty."""
        stale = [segment for segment in segments if segment.start < segment.stop]
        if stale:
            self.draft.prefill(stale, {row: f.prompt for row, f in self.by_row.items()})

    def of(self, reqs: Iterable[Req]) -> list[Followed]:
        """Those of ``reqs`` the draft follows."""
        rows = (req.kv.req_pool_idx for req in reqs)
        return [self.by_row[row] for row in rows if row in self.by_row]

    def traced(self, reqs: Iterable[Req]) -> list[bool]:
        """Which of ``reqs`` ask for the trace of their tokens."""
        rows = (req.kv.req_pool_idx for req in reqs)
        return [row in self.by_row and self.by_row[row].config.trace for row in rows]

    def forget(self, rid: str) -> None:
        """A request is over."""
        for row in [row for row, followed in self.by_row.items() if followed.req.rid == rid]:
            del self.by_row[row]


def can_speculate(req: Any) -> bool:
    """Whether a round may commit several tokens of this request at once.

    Penalties and custom processors depend on every token before, one by one; precomputed
    embeddings are the target's own, which the draft cannot read.
    """
    params = req.sampling_params
    items = req.multimodal_inputs.mm_items if req.multimodal_inputs is not None else []
    return not (
        params.frequency_penalty
        or params.presence_penalty
        or params.repetition_penalty != 1.0
        or params.min_new_tokens
        or req.custom_logit_processor
        or any(item.precomputed_embeddings is not None for item in items)
    )
