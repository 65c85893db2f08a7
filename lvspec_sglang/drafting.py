"""The first half of a round: how much to draft, what the draft must prefill first, its chain."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from sglang.srt.managers.schedule_batch import ScheduleBatch

from lvspec_sglang import ranks
from lvspec_sglang.catch_up import catch_up
from lvspec_sglang.clock import Clock
from lvspec_sglang.config import DraftLengthConfig
from lvspec_sglang.draft.check import DraftKVCheck
from lvspec_sglang.draft_length import DraftLength
from lvspec_sglang.following import Following
from lvspec_sglang.sat_out import SatOut
from lvspec_sglang.upload import upload


class Drafted(NamedTuple):
    """The draft's part of a round.

    Attributes:
        chain: the bonus token, the drafted ones, and padding (``verify_width``),
            ``[batch, width]`` int64.
        length: drafted tokens; 0 in a plain round.
        began: stamp of the moment its context was complete.
        prefill_seconds: tells, when the round is over, what completing it took; None for nothing.
    """

    chain: torch.Tensor
    length: int
    began: Any
    prefill_seconds: Callable[[], float] | None


class Drafting:
    """Drafts for the requests that ``following`` follows, where that pays."""

    def __init__(
        self,
        following: Following,
        config: DraftLengthConfig,
        vocab: int,
        device: torch.device,
    ) -> None:
        """Draft token ids below ``vocab``."""
        self.following = following
        self.vocab = vocab
        self.view = following.draft.view
        self.offsets = torch.arange(following.steps + 1, device=device)
        self.clock = Clock(device)
        self.length = DraftLength(
            config, following.steps, device.type != "cpu", self.clock, ranks.first_decision
        )
        self.sat_out = SatOut(self.view)
        self.check = DraftKVCheck.from_env(following.draft)
        self.verify_width: Callable[[int, int], int] = lambda batch, tokens: tokens

    def draft(self, batch: ScheduleBatch) -> Drafted:
        """Draft after the bonus tokens of ``batch``, or decide not to."""
        rows = [req.kv.req_pool_idx for req in batch.reqs]
        length = self.length.next(len(rows))
        if not self.following.of(batch.reqs):
            length = 0
        began, prefilled = self.clock.now(), False
        if length:
            whole = self.sat_out.prompts(rows, batch.seq_lens, self.following.by_row)
            prefilled = catch_up(self.following, batch.reqs, whole)
        else:
            self.sat_out.note(rows)
        ready = self.clock.now()
        width = self.verify_width(len(rows), 1 + length)
        positions = batch.seq_lens[:, None] + self.offsets[:width]
        self.view.invalidate(self.view.slots(batch.req_pool_indices, positions))
        bonus = batch.spec_info.bonus_tokens.long()[:, None]
        parts = [bonus, bonus.expand(-1, width - 1 - length)]
        if length:
            if self.check is not None:
                self.check(batch, self.following.by_row)
            parts.insert(1, self.tokens(batch, length))
        chain = torch.cat(parts, dim=1)
        self.sat_out.remember(batch.req_pool_indices, positions, chain)
        return Drafted(
            chain,
            length,
            ready,
            partial(self.clock.seconds, began, ready) if prefilled else None,
        )

    def tokens(self, batch: ScheduleBatch, length: int) -> torch.Tensor:
        """What the draft says after the bonus tokens, ``[batch, length]``; repeats if nothing."""
        following, bonus = self.following, batch.spec_info.bonus_tokens.long()
        drafted = bonus[:, None].repeat(1, length)
        known = following.by_row
        followed = [i for i, req in enumerate(batch.reqs) if req.kv.req_pool_idx in known]
        some: slice | torch.Tensor = slice(None)
        if len(followed) < len(bonus):
            some = upload(followed, bonus.device)
        drafted[some] = following.draft.chain(
            batch.req_pool_indices[some],
            batch.seq_lens[some],
            bonus[some],
            length,
            max(req.kv.kv_allocated_len for req in batch.reqs),
            lambda logits: logits[:, : self.vocab].argmax(dim=-1),
        )
        return drafted

    def started(self, batch: ScheduleBatch, drafted: Drafted) -> None:
        """The rest of the round has been handed to the device."""
        self.length.ran(len(batch.reqs), drafted.length, drafted.began)
