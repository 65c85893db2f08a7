"""The first half of a round: whether to draft, what the draft must prefill first, its chain."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from sglang.srt.managers.schedule_batch import ScheduleBatch

from lvspec_sglang import ranks
from lvspec_sglang.catch_up import CatchUp
from lvspec_sglang.clock import Clock
from lvspec_sglang.config import StepAsideConfig
from lvspec_sglang.draft.check import DraftKVCheck
from lvspec_sglang.following import Following
from lvspec_sglang.sat_out import SatOut
from lvspec_sglang.step_aside import StepAside
from lvspec_sglang.upload import upload


class Drafted(NamedTuple):
    """The draft's part of a round.

    Attributes:
        chain: the bonus token and the drafted ones, ``[batch, K + 1]`` int64; in a plain round
            the bonus token alone, or repeated (``plain_width``).
        plain: whether nothing was drafted.
        began: stamp of the moment its context was complete.
        prefill_seconds: tells, when the round is over, what completing it took; None for nothing.
    """

    chain: torch.Tensor
    plain: bool
    began: Any
    prefill_seconds: Callable[[], float] | None


class Drafting:
    """Drafts for the requests that ``following`` follows, where that pays."""

    def __init__(
        self,
        following: Following,
        config: StepAsideConfig,
        vocab: int,
        device: torch.device,
    ) -> None:
        """Draft token ids below ``vocab``."""
        self.following = following
        self.vocab = vocab
        self.view = following.draft.view
        self.offsets = torch.arange(following.steps + 1, device=device)
        self.clock = Clock(device)
        self.aside = StepAside(config, device.type != "cpu", self.clock, ranks.first_decision)
        self.sat_out = SatOut(self.view)
        self.catch_up = CatchUp(following)
        self.check = DraftKVCheck.from_env(following.draft)
        self.plain_width: Callable[[int], int] = lambda batch: 1

    def draft(self, batch: ScheduleBatch) -> Drafted:
        """Draft after the bonus tokens of ``batch``, or decide not to."""
        rows = [req.kv.req_pool_idx for req in batch.reqs]
        drafts = self.aside.drafts(len(rows)) and bool(self.following.of(batch.reqs))
        began, prefilled = self.clock.now(), False
        if drafts:
            whole = self.sat_out.prompts(rows, batch.seq_lens, self.following.by_row)
            prefilled = self.catch_up(batch.reqs, whole)
        else:
            self.sat_out.note(rows)
        ready = self.clock.now()
        width = len(self.offsets) if drafts else self.plain_width(len(rows))
        positions = batch.seq_lens[:, None] + self.offsets[:width]
        self.view.invalidate(self.view.slots(batch.req_pool_indices, positions))
        bonus = batch.spec_info.bonus_tokens.long()[:, None]
        tokens = bonus.expand(-1, width - 1)
        if drafts:
            if self.check is not None:
                self.check(batch, self.following.by_row)
            tokens = self.tokens(batch)
        chain = torch.cat([bonus, tokens], dim=1)
        self.sat_out.remember(batch.req_pool_indices, positions, chain)
        return Drafted(
            chain,
            not drafts,
            ready,
            partial(self.clock.seconds, began, ready) if prefilled else None,
        )

    def tokens(self, batch: ScheduleBatch) -> torch.Tensor:
        """The draft's tokens after the bonus tokens, ``[batch, K]``; repeats where it has none."""
        following, bonus = self.following, batch.spec_info.bonus_tokens.long()
        drafted = bonus[:, None].repeat(1, following.steps)
        known = following.by_row
        followed = [i for i, req in enumerate(batch.reqs) if req.kv.req_pool_idx in known]
        some: slice | torch.Tensor = slice(None)
        if len(followed) < len(bonus):
            some = upload(followed, bonus.device)
        drafted[some] = following.draft.chain(
            batch.req_pool_indices[some],
            batch.seq_lens[some],
            bonus[some],
            following.steps,
            max(req.kv.kv_allocated_len for req in batch.reqs),
            lambda logits: logits[:, : self.vocab].argmax(dim=-1),
        )
        return drafted

    def started(self, batch: ScheduleBatch, drafted: Drafted) -> None:
        """The rest of the round has been handed to the device."""
        self.aside.ran(len(batch.reqs), not drafted.plain, drafted.began)
