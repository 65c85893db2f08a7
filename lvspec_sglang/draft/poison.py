"""A debug mode: whatever the draft must not read is NaN, and no NaN may reach its logits.

A draft that reads a slot it did not write still answers right, because the target verifies. Set
``LVSPEC_POISON_DRAFT_KV=1``: slots are filled with NaN when the pool is made, when the allocator
takes them back and when the target writes them; a draft logit that is NaN raises.
"""

import os
from typing import Any

import torch

from lvspec_sglang.draft.kv_view import DraftKVView

POISON_ENV = "LVSPEC_POISON_DRAFT_KV"


def kv_buffers(runner: Any) -> list[torch.Tensor]:
    """Every key and value buffer of a runner's pool, ``[slots, kv_heads, dim]`` each."""
    pool = runner.token_to_kv_pool
    layers = range(pool.start_layer, pool.start_layer + pool.layer_num)
    return [
        b for layer in layers for b in (pool.get_key_buffer(layer), pool.get_value_buffer(layer))
    ]


class PoisonedKVView(DraftKVView):
    """A view that fills what becomes invalid, or free, with NaN."""

    def __init__(
        self, target_table: torch.Tensor, draft_table: torch.Tensor, slots: int, runner: Any
    ) -> None:
        super().__init__(target_table, draft_table, slots)
        self.buffers = kv_buffers(runner)
        self._fill(slice(None))
        allocator = runner.token_to_kv_pool_allocator
        free = allocator.free

        def poison(free_index: torch.Tensor) -> None:
            self._fill(free_index.long())
            free(free_index)

        allocator.free = poison

    def invalidate(self, slots: torch.Tensor) -> None:
        super().invalidate(slots)
        self._fill(slots.flatten().long())

    def clear(self) -> None:
        super().clear()
        self._fill(slice(None))

    def check_logits(self, logits: torch.Tensor) -> None:
        """Raise if a row of draft logits was computed from poison.

        Raises:
            AssertionError: naming the rows.
        """
        bad = logits.isnan().any(dim=-1).nonzero().flatten().tolist()
        assert not bad, f"draft logits of batch rows {bad} were read from unwritten slots"

    def _fill(self, slots: Any) -> None:
        for buffer in self.buffers:
            buffer[slots] = float("nan")


def poisoned() -> bool:
    """Whether the debug mode is asked for."""
    return os.environ.get(POISON_ENV) == "1"
