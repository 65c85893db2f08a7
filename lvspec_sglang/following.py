"""The requests in flight: what of each the draft holds, and how far each is relaxed."""

import logging
from array import array
from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

import torch
from sglang.srt.managers.schedule_batch import Req

from lvspec_sglang.attention.chain_plan import Context
from lvspec_sglang.config import RelaxConfig, RequestConfig
from lvspec_sglang.config_json import asked_of, parse_request
from lvspec_sglang.counters import count
from lvspec_sglang.draft.kept import KeptTokens
from lvspec_sglang.draft.model import DraftModel, Prompt
from lvspec_sglang.draft.vision import prompt_rope, visible_spans
from lvspec_sglang.metrics import Asked
from lvspec_sglang.relaxation import MAX_STOP_TOKENS, Relaxation
from lvspec_sglang.upload import upload

logger = logging.getLogger(__name__)

TOKEN_IDS = range(1 << 31)


@dataclass
class Followed:
    """A request whose context the draft holds in its row.

    Attributes:
        cached_len: tokens of the row that belonged to the radix cache when the draft's context
            was last brought up to date; None before the first round.
        videos: contents of its videos.
    """

    req: Req
    prompt: Prompt
    config: RequestConfig
    spans: tuple[tuple[int, int], ...]  # prompt positions [start, stop) of visual tokens
    prefix: Hashable  # equal for prompts that are the same up to their last visual token
    videos: frozenset[Hashable]
    cached_len: int | None = None


class Following:
    """Starts requests in their rows and knows them by row.

    Attributes:
        default: the relaxation of a request that says nothing itself.
    """

    def __init__(
        self, draft: DraftModel, kept: KeptTokens, relaxation: Relaxation, steps: int
    ) -> None:
        self.draft = draft
        self.kept = kept
        self.relaxation = relaxation
        self.steps = steps
        self.default = RelaxConfig()
        self.by_row: dict[int, Followed] = {}
        self._parked: WeakKeyDictionary[Req, tuple[torch.Tensor, torch.Tensor]] = (
            WeakKeyDictionary()
        )

    def watching(self, reqs: Sequence[Req]) -> AbstractContextManager[None]:
        """Around the target's prefill of ``reqs``."""
        return self.kept.watching(reqs, is_readable)

    def begin(self, req: Req) -> None:
        """Give a request whose prompt the target has just prefilled its row."""
        row, ids, mm = req.kv.req_pool_idx, req.get_fill_ids(), req.multimodal_inputs
        rope, rope_delta = prompt_rope(mm, len(ids))
        speculated = can_speculate(req)
        found = visible_spans(self.draft.embedder.family, mm, ids) if is_readable(req) else []
        spans = tuple(sorted((span.start, span.stop) for span in found)) if speculated else ()
        given = {*(req.eos_token_ids or ()), *(req.sampling_params.stop_token_ids or ())}
        stops = {token for token in given if token in TOKEN_IDS}  # the host takes any number
        video = any(mm.mm_items[span.item].is_video() for span in found)
        config = self._config(req, video, stops)
        relax = config.relax

        for other in [r for r, followed in self.by_row.items() if followed.req.finished()]:
            del self.by_row[other]
        scores = self._scores_before(req, row)
        running = (followed.videos for followed in self.by_row.values())
        # Chosen for whoever brings a video first: others will find it in the radix cache.
        kept, chosen = self.kept.positions(req, found, len(ids), frozenset().union(*running))
        view = self.draft.view
        view.invalidate(view.target_table[row, chosen])
        if speculated:
            videos = frozenset(content for content, _ in self.kept.videos(mm, found))
            on_device = upload(torch.tensor(ids, dtype=torch.int64), kept.device)
            prompt = Prompt(on_device, kept, mm, found, rope, rope_delta)
            prefix = None
            if spans:
                prefix = prompt_digest(ids[: spans[-1][1]], req.extra_key, req.cache_salt)
            self.by_row[row] = Followed(req, prompt, config, spans, prefix, videos)
            dropped = len(ids) - len(kept)
            count("visual_tokens", dropped, draft="dropped")
            seen = sum(stop - start for start, stop in spans)
            count("visual_tokens", seen - dropped, draft="kept")
        view.begin(row, kept if speculated else kept[:0], len(ids), rope_delta)
        self.relaxation.begin(
            row,
            self.steps if speculated else 0,
            relax,
            spans,
            [] if relax.strict else sorted(stops),
        )
        if scores is not None:
            self.relaxation.ring.put(row, scores)

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

    def _config(self, req: Req, video: bool, stops: set[int]) -> RequestConfig:
        """Strict without a video, with a grammar, a logit bias or log-probabilities."""
        try:
            config = parse_request(asked_of(req.sampling_params.custom_params), self.default)
        except ValueError as error:
            # Refused where requests come in; one that gets here must not end the server.
            logger.warning("Request %s is served strictly: %s", req.rid, error)
            config = RequestConfig(RelaxConfig())
        params = req.sampling_params
        asks = req.grammar is not None or req.return_logprob or params.logit_bias
        free = not asks and len(stops) <= MAX_STOP_TOKENS
        return config if video and free else replace(config, relax=RelaxConfig())

    def of(self, reqs: Iterable[Req]) -> list[Followed]:
        """Those of ``reqs`` the draft follows."""
        rows = (req.kv.req_pool_idx for req in reqs)
        return [self.by_row[row] for row in rows if row in self.by_row]

    def asked(self, reqs: Iterable[Req]) -> Asked:
        """What is known of ``reqs``; one that is not followed asks for nothing."""
        found = [self.by_row.get(req.kv.req_pool_idx) for req in reqs]
        configs = [followed.config if followed is not None else None for followed in found]
        return Asked(
            [followed is not None for followed in found],
            [config is not None and not config.relax.strict for config in configs],
            [config is not None and config.trace for config in configs],
        )

    def contexts(self, reqs: Iterable[Req]) -> list[Context]:
        """What a verify forward may know of ``reqs`` without asking the device.

        The radix cache keeps one set of slots for a prefix, so requests share the slots of the
        prompt they share, up to where the cache owns them.
        """
        contexts = []
        for req in reqs:
            row = req.kv.req_pool_idx
            followed = self.by_row.get(row)
            if followed is None or not followed.spans:
                contexts.append(Context(row))
            else:
                owned = req.kv.cache_protected_len >= followed.spans[-1][1]
                contexts.append(Context(row, followed.spans, followed.prefix if owned else None))
        return contexts


def prompt_digest(ids: Iterable[int], *keys: str | None) -> Hashable:
    """Equal for prompts the radix cache takes for the same: their ids, in one key space."""
    return blake2b(array("q", ids).tobytes()).digest(), *keys


def can_speculate(req: Any) -> bool:
    """Whether a round may commit several tokens of this request at once.

    Penalties and custom processors depend on every token before, one by one.
    """
    params = req.sampling_params
    return is_readable(req) and not (
        params.frequency_penalty
        or params.presence_penalty
        or params.repetition_penalty != 1.0
        or params.min_new_tokens
        or req.custom_logit_processor
    )


def is_readable(req: Any) -> bool:
    """Whether the draft can see what the target sees: precomputed embeddings are the target's."""
    items = req.multimodal_inputs.mm_items if req.multimodal_inputs is not None else []
    return all(item.precomputed_embeddings is None for item in items)
