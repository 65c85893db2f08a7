"""FlashInfer's paged-prefill interface in torch: plans by index pointers, LSEs to base 2."""

import math
from typing import Any

import torch


class TorchPaged:
    """Computes what ``BatchPrefillWithPagedKVCacheWrapper`` would, page size 1, fp32 inside."""

    def plan(
        self, qo_indptr: torch.Tensor, kv_indptr: torch.Tensor, slots: torch.Tensor,
        last_page_len: torch.Tensor, qo_heads: int, kv_heads: int, head_dim: int, page_size: int,
        q_data_type: torch.dtype, kv_data_type: torch.dtype, non_blocking: bool = True,
        fixed_split_size: int | None = None,
    ) -> None:  # fmt: skip
        assert page_size == 1 and len(slots) == int(kv_indptr[-1])
        self.piece = fixed_split_size
        assert len(qo_indptr) == len(kv_indptr) == len(last_page_len) + 1
        self.queries, self.keys, self.slots = qo_indptr.tolist(), kv_indptr.tolist(), slots.long()
        self.group = qo_heads // kv_heads

    def forward_return_lse(
        self, q: torch.Tensor, kv_cache: Any, causal: bool, sm_scale: float,
        logits_soft_cap: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        assert len(q) == self.queries[-1] and not logits_soft_cap
        output = torch.zeros_like(q)
        lse = torch.full(q.shape[:2], -5e4)
        for entry in range(len(self.queries) - 1):
            mine = slice(self.queries[entry], self.queries[entry + 1])
            slots = self.slots[self.keys[entry] : self.keys[entry + 1]]
            if mine.start == mine.stop or not len(slots):
                continue
            k, v = (cache[slots].float().repeat_interleave(self.group, 1) for cache in kv_cache)
            logits = torch.einsum("qhd,khd->hqk", q[mine].float(), k) * sm_scale
            if causal:
                new = mine.stop - mine.start
                seen = torch.ones(new, len(slots), dtype=torch.bool).tril_(len(slots) - new)
                logits = logits.masked_fill(~seen, float("-inf"))
            output[mine] = torch.einsum("hqk,khd->qhd", logits.softmax(-1), v).to(q.dtype)
            lse[mine] = logits.logsumexp(-1).T / math.log(2)
        return output, lse


def merge(
    one: torch.Tensor, one_lse: torch.Tensor, other: torch.Tensor, other_lse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``flashinfer.cascade.merge_state``."""
    lse = torch.logaddexp2(one_lse, other_lse)
    parts = ((one_lse - lse).exp2()[..., None] * one, (other_lse - lse).exp2()[..., None] * other)
    return sum(parts).to(one.dtype), lse
