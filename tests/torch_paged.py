"""Attention kernels over pages of one token, in torch: FlashInfer's wrapper, FlashAttention 3."""

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch

from tests.recorded_graph import kernel


class TorchPaged:
    """Computes what ``BatchPrefillWithPagedKVCacheWrapper`` would, page size 1, fp32 inside.

    Made for a captured graph, it reads the buffers it was given, whatever it is planned with.

    Attributes:
        replanned: called with the queries of every entry, if a captured wrapper's plan has them.
    """

    replanned: Callable[[int], None] = staticmethod(lambda queries: None)

    def __init__(
        self, workspace: torch.Tensor | None = None, kv_layout: str = "NHD",
        use_cuda_graph: bool = False, qo_indptr_buf: torch.Tensor | None = None,
        paged_kv_indptr_buf: torch.Tensor | None = None,
        paged_kv_indices_buf: torch.Tensor | None = None,
        paged_kv_last_page_len_buf: torch.Tensor | None = None, backend: str = "fa2",
        use_tensor_cores: bool = False,
    ) -> None:  # fmt: skip
        self.device = torch.device("cpu")
        self.is_cuda_graph_enabled = use_cuda_graph
        self._qo_indptr_buf = qo_indptr_buf
        self._paged_kv_indptr_buf = paged_kv_indptr_buf
        self._paged_kv_indices_buf = paged_kv_indices_buf
        self._paged_kv_last_page_len_buf = paged_kv_last_page_len_buf
        # What the host's own planner of captured wrappers reads and writes beside the buffers.
        self._backend = backend
        self._cached_module: Any = None
        self._max_total_num_rows: int | None = None
        self._float_workspace_buffer = self._int_workspace_buffer = workspace
        self._pin_memory_int_workspace_buffer = workspace

    def plan(
        self, qo_indptr: torch.Tensor, kv_indptr: torch.Tensor, slots: torch.Tensor,
        last_page_len: torch.Tensor, qo_heads: int, kv_heads: int, head_dim: int, page_size: int,
        q_data_type: torch.dtype, kv_data_type: torch.dtype, non_blocking: bool = True,
        fixed_split_size: int | None = None, custom_mask: None = None, prefix_len_ptr: None = None,
        token_pos_in_items_ptr: None = None, token_pos_in_items_len: int = 0,
        max_item_len_ptr: None = None,
    ) -> None:  # fmt: skip
        assert custom_mask is None
        keys = int(kv_indptr[-1])
        assert page_size == 1 and len(slots) >= keys
        assert len(qo_indptr) == len(kv_indptr) == len(last_page_len) + 1
        self.piece = fixed_split_size
        if not self.is_cuda_graph_enabled:
            self._qo_indptr_buf, self._paged_kv_indptr_buf = qo_indptr.clone(), kv_indptr.clone()
            self._paged_kv_indices_buf = slots[:keys].clone()
            return
        self._qo_indptr_buf.copy_(qo_indptr)
        self._paged_kv_indptr_buf.copy_(kv_indptr)
        self._paged_kv_last_page_len_buf.copy_(last_page_len)
        self._paged_kv_indices_buf[: len(slots)] = slots
        self._cached_module = SimpleNamespace(plan=self._replan)

    begin_forward = plan

    def _replan(self, *given: Any) -> None:
        """FlashInfer's own planner, which refuses what entries do not hold to."""
        assert len(given) == 20
        queries, entries = given[-1], given[3].diff()
        assert not queries or bool((entries == queries).all())
        self.replanned(queries)

    def forward_return_lse(
        self, q: torch.Tensor, kv_cache: Any, causal: bool, sm_scale: float,
        logits_soft_cap: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        assert not logits_soft_cap
        buffers = self._qo_indptr_buf, self._paged_kv_indptr_buf, self._paged_kv_indices_buf
        result: tuple[torch.Tensor, torch.Tensor] = attend(q, *kv_cache, *buffers, causal, sm_scale)
        return result

    def forward(
        self, q: torch.Tensor, kv_cache: Any, causal: bool, sm_scale: float,
        logits_soft_cap: float | None = None, k_scale: Any = None, v_scale: Any = None,
        window_left: int = -1,
    ) -> torch.Tensor:  # fmt: skip
        return self.forward_return_lse(q, kv_cache, causal, sm_scale, logits_soft_cap)[0]


@kernel
def attend(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, qo_indptr: torch.Tensor,
    kv_indptr: torch.Tensor, slots: torch.Tensor, causal: bool, scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention and its LSE of each entry's queries to the keys at its slots."""
    keys = kv_indptr.tolist()
    read = [slots[start:stop] for start, stop in pairwise(keys)]
    return attend_each(q, k_cache, v_cache, qo_indptr, read, causal, scale)


@kernel
def flash_attn_with_kvcache(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, page_table: torch.Tensor,
    cache_seqlens: torch.Tensor, cu_seqlens_q: torch.Tensor, causal: bool, softmax_scale: float,
    softcap: float = 0.0, window_size: tuple[int, int] = (-1, -1), **launch: Any,
) -> torch.Tensor:  # fmt: skip
    """FlashAttention 3 on pages of one token."""
    assert not softcap and window_size == (-1, -1) and not launch.get("return_softmax_lse")
    lens = cache_seqlens.tolist()
    assert max(lens) <= page_table.shape[1]
    read = [row[:count] for row, count in zip(page_table, lens, strict=True)]
    k, v = k_cache.flatten(0, 1), v_cache.flatten(0, 1)
    return attend_each(q, k, v, cu_seqlens_q, read, causal, softmax_scale)[0]


def attend_each(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, qo_indptr: torch.Tensor,
    read: list[torch.Tensor], causal: bool, scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    bounds = qo_indptr.tolist()
    assert len(q) == bounds[-1] and len(read) == len(bounds) - 1
    output = torch.zeros_like(q)
    lse = torch.full(q.shape[:2], -5e4)
    group = q.shape[1] // k_cache.shape[1]
    for (start, stop), slots in zip(pairwise(bounds), read, strict=True):
        if start == stop or not len(slots):
            continue
        k, v = (cache[slots.long()].float() for cache in (k_cache, v_cache))
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        logits = torch.einsum("qhd,khd->hqk", q[start:stop].float(), k) * scale
        if causal:
            seen = torch.ones(logits.shape[1:], dtype=torch.bool).tril_(len(slots) - stop + start)
            logits = logits.masked_fill(~seen, float("-inf"))
        output[start:stop] = torch.einsum("hqk,khd->qhd", logits.softmax(-1), v).to(q.dtype)
        lse[start:stop] = logits.logsumexp(-1).T / math.log(2)
    return output, lse


def merge(
    one: torch.Tensor, one_lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``flashinfer.cascade.merge_state``."""
    lse = torch.logaddexp2(one_lse, other_lse)
    parts = ((one_lse - lse).exp2()[..., None] * one, (other_lse - lse).exp2()[..., None] * other)
    return sum(parts).to(one.dtype), lse
