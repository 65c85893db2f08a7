"""Attention of the CPU platform: the host's torch backend, taught to verify a chain.

A chain of drafted tokens is an extend by that many tokens after a prefix of ``seq_lens``. The
host's extend computes every query of the whole sequence and throws the prefix away; this one
computes only the new ones, which is what makes a verify forward cheap.
"""

from typing import Any

import torch
from sglang.srt.layers.attention.attention_registry import register_attention_backend
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from torch.nn.functional import scaled_dot_product_attention


class ChainTorchBackend(TorchNativeAttnBackend):
    """The host's backend with TARGET_VERIFY and an extend that computes new queries only."""

    def init_forward_metadata(self, forward_batch: Any) -> None:
        super().init_forward_metadata(forward_batch)
        if forward_batch.forward_mode.is_target_verify():
            prefix = forward_batch.seq_lens
            width = forward_batch.spec_info.draft_token_num
            forward_batch.extend_prefix_lens = prefix
            forward_batch.extend_seq_lens = torch.full_like(prefix, width)

    def _run_sdpa_forward_extend(
        self,
        query: torch.Tensor,
        output: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        req_to_token: torch.Tensor,
        req_pool_indices: torch.Tensor,
        seq_lens: torch.Tensor,
        extend_prefix_lens: torch.Tensor,
        extend_seq_lens: torch.Tensor,
        encoder_lens: torch.Tensor | None = None,
        scaling: float | None = None,
        enable_gqa: bool = False,
        causal: bool = False,
        is_cross_attn: bool = False,
        sliding_window_size: int | None = None,
    ) -> torch.Tensor:
        """Attend from each request's new tokens to its prefix and themselves.

        Args:
            query, output: ``[tokens, heads, head_dim]``; ``output`` is written in place.
            k_cache, v_cache: ``[slots, kv_heads, head_dim]``.
            extend_prefix_lens, extend_seq_lens: ``[batch]``; their sum is the length attended to.
        """
        if encoder_lens is not None or not causal or sliding_window_size is not None:
            return super()._run_sdpa_forward_extend(
                query, output, k_cache, v_cache, req_to_token, req_pool_indices, seq_lens,
                extend_prefix_lens, extend_seq_lens, encoder_lens, scaling, enable_gqa, causal,
                is_cross_attn, sliding_window_size,
            )  # fmt: skip
        start = 0
        requests = zip(
            req_pool_indices.tolist(),
            extend_prefix_lens.tolist(),
            extend_seq_lens.tolist(),
            strict=True,
        )
        for row, prefix, new in requests:
            slots = req_to_token[row, : prefix + new]
            visible = torch.ones(new, prefix + new, dtype=torch.bool).tril_(prefix)
            output[start : start + new] = scaled_dot_product_attention(
                query[start : start + new].transpose(0, 1)[None],
                k_cache[slots].to(query.dtype).transpose(0, 1)[None],
                v_cache[slots].to(query.dtype).transpose(0, 1)[None],
                attn_mask=visible,
                scale=scaling,
                enable_gqa=enable_gqa,
            )[0].transpose(0, 1)
            start += new
        return output


def register() -> None:
    """Serve the name ``torch_native`` with this backend; the name stays, as the host compares it."""
    register_attention_backend("torch_native")(ChainTorchBackend)
