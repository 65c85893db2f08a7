"""A host backend whose verify forwards are causal chains, planned from host lengths.

Nothing of the host's own verify path is used: it reads a mask for every pair of tokens, and its
graph buffers hold a whole context for each drafted token. A causal chain needs neither.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from lvspec_sglang.attention.chain import Call, Calls, ChainAttention, Shape, bundle
from lvspec_sglang.attention.chain_plan import Context, saved_tokens


class ChainBackend:
    """Before a host backend in the bases of a class: takes TARGET_VERIFY from it.

    Attributes:
        share_from: tokens of KV that reading videos together has to save before it is done; None
            where it never is. Captured graphs need a variant for it.
    """

    share_from: int | None = None
    token_to_kv_pool: Any

    def begin_chains(
        self,
        table: torch.Tensor,
        shape: Shape,
        width: int,
        merge: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        wrapper: Callable[[], Any],
    ) -> None:
        """Prepare for chains of at most ``width`` over the request ``table``.

        Args:
            shape: heads and dtypes of this rank.
            merge: of two attentions and their LSEs to base 2, the whole and its LSE.
            wrapper: makes a paged-prefill wrapper for forwards outside captured graphs.
        """
        self.shape = shape
        self.width = width
        self.chain = ChainAttention(table, merge)
        self.wrapper = wrapper
        self.eager_calls: list[Call] | None = None

    def shares(self, contexts: Sequence[Context]) -> bool:
        """Whether a batch of ``contexts`` reads videos together."""
        return self.share_from is not None and saved_tokens(contexts) >= self.share_from

    def init_forward_metadata(self, forward_batch: Any) -> None:
        if not forward_batch.forward_mode.is_target_verify():
            return super().init_forward_metadata(forward_batch)  # type: ignore[misc]
        if self.eager_calls is None:
            self.eager_calls = [Call(self.wrapper, self.shape, None) for _ in range(3)]
        width = getattr(forward_batch.spec_info, "draft_token_num", self.width)
        queries = forward_batch.batch_size * width
        calls = bundle(self.eager_calls, queries, self.chain.table.device)
        self.plan_chain(calls, forward_batch, self.shares(contexts_of(forward_batch)), width)

    def plan_chain(self, calls: Calls, forward_batch: Any, shared: bool, width: int) -> None:
        lens = forward_batch.seq_lens_cpu[: forward_batch.batch_size].tolist()
        self.chain.plan(calls, contexts_of(forward_batch), lens, shared, width)

    def kv_scales(self, layer: Any) -> Sequence[Any]:
        """What the pool wants beside K and V."""
        return ()

    def forward_extend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: Any, forward_batch: Any,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:  # fmt: skip
        if not forward_batch.forward_mode.is_target_verify():
            host: Any = super()
            result: torch.Tensor = host.forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
            return result
        if k is not None and save_kv_cache:
            where = KVWriteLoc.for_layer(forward_batch, layer, swa_loc=None)
            self.token_to_kv_pool.set_kv_buffer(layer, where, k, v, *self.kv_scales(layer))
        queries = q.contiguous().view(-1, layer.tp_q_head_num, layer.head_dim)
        cache = self.token_to_kv_pool.get_kv_buffer(layer.layer_id)
        return self.chain.forward(queries, cache, layer).view(len(queries), -1)


def contexts_of(forward_batch: Any) -> Sequence[Context]:
    """What the worker knows of the batch; nothing of the host's dummy batches."""
    return getattr(forward_batch.spec_info, "contexts", ())
