"""FlashInfer's verify attention of one layer in a captured graph, planned as a served round is.

And what it is compared with: one of its calls by itself, and FA3 as SGLang calls it.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from lvspec_sglang.attention.chain import ChainAttention, Shape
from lvspec_sglang.attention.chain_plan import Context

WORKSPACE = 512 << 20


class CapturedAttention:
    """One graph over a layer's queries and paged KV; needs a CUDA GPU."""

    def __init__(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, table: torch.Tensor,
        scale: float, together: bool,
    ) -> None:  # fmt: skip
        """Capture it as the host does: over contexts of one token, of which nothing is known.

        Args:
            q: ``[batch * width, heads, head_dim]`` bfloat16.
            keys, values: ``[slots, kv_heads, head_dim]``.
            table: slot of each position, ``[batch, context]`` int32.
            together: whether requests on one video read it together.
        """
        from sglang.srt.layers.attention.flashinfer_backend import _safe_merge_state

        from lvspec_sglang.attention.flashinfer import graph_calls

        self.batch, self.together = len(table), together
        self.width = len(q) // self.batch
        heads = q.shape[1], keys.shape[1], q.shape[2]
        slots = [torch.zeros(table.numel(), dtype=torch.int32, device="cuda") for _ in range(3)]
        space = torch.empty(WORKSPACE, dtype=torch.uint8, device="cuda")
        shape = Shape(*heads, q.dtype, keys.dtype)
        self.calls = graph_calls(self.batch, self.width, slots, space, shape, "fa2")
        self.attention = ChainAttention(table, _safe_merge_state)
        self.plan([], [1] * self.batch)
        layer: Any = SimpleNamespace(scaling=scale, logit_cap=0.0)
        cache = keys[:, None], values[:, None]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.attention.forward(q, cache, layer)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = self.attention.forward(q, cache, layer)

    def plan(self, contexts: Sequence[Context], seq_lens: Sequence[int]) -> None:
        """Plan the next replays; committed lengths, one a request."""
        self.attention.plan(self.calls, contexts, seq_lens, self.together, self.width)

    def replay(self) -> torch.Tensor:
        """Attention ``[batch * width, heads, head_dim]``, in memory the next replay writes."""
        self.graph.replay()
        return self.output


def planned_call(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, scale: float
) -> Callable[[], torch.Tensor]:
    """A planned call in which all queries attend to all of ``slots``; needs a CUDA GPU.

    Args:
        q: ``[queries, heads, head_dim]`` bfloat16.
        keys, values: ``[slots of the pool, kv_heads, head_dim]``.
        slots: ``[tokens]`` int32.
    """
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper

    space = torch.empty(WORKSPACE, dtype=torch.uint8, device=q.device)
    wrapper = BatchPrefillWithPagedKVCacheWrapper(space, "NHD", backend="fa2")
    queries, tokens = (torch.tensor([0, len(t)], dtype=torch.int32) for t in (q, slots))
    page = torch.ones(1, dtype=torch.int32)
    wrapper.plan(
        queries, tokens, slots, page, q.shape[1], keys.shape[1], q.shape[2], 1,
        sm_scale=scale, q_data_type=q.dtype, kv_data_type=keys.dtype,
    )  # fmt: skip
    cache = keys[:, None], values[:, None]
    return lambda: wrapper.run(q, cache)


def fa3_call(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, table: torch.Tensor, scale: float,
    causal: bool,
) -> Callable[[], torch.Tensor]:  # fmt: skip
    """FA3 over whole rows of a table, each with an equal share of the queries; needs Hopper.

    Args:
        q: ``[entries * queries, heads, head_dim]`` bfloat16.
        keys, values: ``[slots of the pool, kv_heads, head_dim]``.
        table: ``[entries, tokens]`` int32.
        causal: whether the last queries and tokens are the same.
    """
    from sgl_kernel.flash_attn import flash_attn_with_kvcache

    entries, tokens = table.shape
    queries = len(q) // entries
    starts = torch.arange(0, len(q) + 1, queries, dtype=torch.int32, device=q.device)
    lens = torch.full((entries,), tokens, dtype=torch.int32, device=q.device)

    def call() -> torch.Tensor:
        output: torch.Tensor = flash_attn_with_kvcache(
            q, keys[:, None], values[:, None], page_table=table, cache_seqlens=lens,
            cu_seqlens_q=starts, max_seqlen_q=queries, softmax_scale=scale, causal=causal,
        )  # fmt: skip
        return output

    return call
