"""A debug check: is the draft's KV what a fresh prefill of its whole context would write?

Strict verification hides a stale draft row: the output stays right, only fewer drafts are
accepted. This check cannot be fooled that way. Set ``LVSPEC_CHECK_DRAFT_KV=1``; it recomputes every
request's draft context in every round and expects the same numbers to 0.001, so it is for tests in
float32.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from sglang.srt.runtime_context import get_schedule

from lvspec_sglang.draft.batches import Segment, extend_batch
from lvspec_sglang.draft.model import DraftModel
from lvspec_sglang.draft.poison import kv_buffers
from lvspec_sglang.draft.vision import rope_positions

CHECK_ENV = "LVSPEC_CHECK_DRAFT_KV"
TOLERANCE = 1e-3


class DraftKVCheck:
    """Compares the draft's KV pool with a recomputation, for every followed request."""

    def __init__(self, draft: DraftModel) -> None:
        self.draft = draft
        self.buffers = kv_buffers(draft.model_runner)

    @classmethod
    def from_env(cls, draft: DraftModel) -> "DraftKVCheck | None":
        """The check, if it was asked for.

        Raises:
            ValueError: overlap scheduling is on, where a round begins before the host has seen the
                tokens of the one before.
        """
        if not draft.owns_kv or os.environ.get(CHECK_ENV) != "1":
            return None
        if not get_schedule().disable_overlap_schedule:
            raise ValueError(
                f"{CHECK_ENV}=1 reads the tokens of the last round, which overlap scheduling has "
                "still on their way: add --disable-overlap-schedule"
            )
        return cls(draft)

    @torch.inference_mode()
    def __call__(self, batch: Any, followed: Mapping[int, Any]) -> None:
        """Check the committed context of every followed request of ``batch``.

        Raises:
            AssertionError: a request's draft KV differs from the recomputed one.
        """
        for req, seq_len in zip(batch.reqs, batch.seq_lens.tolist(), strict=True):
            entry = followed.get(req.kv.req_pool_idx)
            if entry is not None:
                self._check(req, entry.prompt, seq_len)

    def _check(self, req: Any, prompt: Any, seq_len: int) -> None:
        draft, row = self.draft, req.kv.req_pool_idx
        view = draft.view
        rows = torch.tensor([row], device=view.valid.device)
        view.gather(rows, view.width)
        # A lagging row has no draft KV yet for its last token.
        length = int(view.lengths(rows, rows.new_tensor([seq_len]))) - int(view.lagging[row])
        positions = view.kept[row, :length]
        ids = rows.new_tensor([*req.origin_input_ids, *req.output_ids])[positions]
        slots = view.draft_table[row, :length].long()
        assert bool(view.valid[slots].all()), f"{req.rid}: draft slots not marked as written"
        saved = [buffer[slots].clone() for buffer in self.buffers]
        fresh = extend_batch(
            draft.model_runner,
            [Segment(row, 0, length)],
            slots,
            positions,
            rope_positions(positions, prompt.rope, prompt.rope_delta),
        )
        embeds = draft.embedder.embed(ids, positions, prompt.mm_inputs, prompt.spans)
        draft.forward_embeds(fresh, embeds)
        for buffer, before in zip(self.buffers, saved, strict=True):
            error = (buffer[slots] - before).abs().amax(dim=(1, 2))
            buffer[slots] = before
            worst = int(error.argmax())
            assert float(error[worst]) < TOLERANCE, (
                f"{req.rid}: draft KV at position {int(positions[worst])} of {seq_len} is off by "
                f"{float(error[worst]):.2e} (prompt of {len(prompt.ids)})"
            )
