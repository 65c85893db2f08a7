"""Attention of the CPU platform: the host's torch backend, taught to verify a chain.

A chain of drafted tokens is an extend by that many tokens after a prefix of ``seq_lens``. The
host's extend computes every query of the whole sequence and throws the prefix away; this one
computes only the new ones, which is what makes a verify forward cheap.
"""

from collections.abc import Callable
from typing import Any

import torch
from sglang.srt.layers.attention.attention_registry import register_attention_backend
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from torch.nn.functional import scaled_dot_product_attention

from lvspec_sglang.relevance.attention import visual_attention
from lvspec_sglang.relevance.base import Scorer


class ChainTorchBackend(TorchNativeAttnBackend):
    """The host's backend with TARGET_VERIFY and an extend that computes new queries only."""

    padded_tokens = 0
    _scoring: tuple[Scorer, torch.Tensor] | None = None
    _report: Callable[[int, torch.Tensor], None] | None = None

    def attach_scorer(self, scorer: Scorer, visual: torch.Tensor) -> None:
        """Report attention on visual positions, ``[rows, width]`` bool, of verify forwards."""
        self._scoring = scorer, visual

    def init_forward_metadata(self, forward_batch: Any) -> None:
        super().init_forward_metadata(forward_batch)
        if forward_batch.forward_mode.is_target_verify():
            prefix = forward_batch.seq_lens
            width = forward_batch.spec_info.draft_token_num
            forward_batch.extend_prefix_lens = prefix
            forward_batch.extend_seq_lens = torch.full_like(prefix, width)

    def forward_extend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        if self._scoring is None or not forward_batch.forward_mode.is_target_verify():
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        scorer, visual = self._scoring
        if not scorer.listening or layer.layer_id not in scorer.layers:
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        reports: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._report = lambda row, logits: reports.append(
            visual_attention(logits, visual[row, : logits.shape[-1]])
        )
        try:
            output = super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        finally:
            self._report = None
        scorer.observe(*(torch.cat(parts)[None] for parts in zip(*reports, strict=True)))
        return output

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
            q = query[start : start + new].transpose(0, 1)
            k, v = (cache[slots].to(query.dtype).transpose(0, 1) for cache in (k_cache, v_cache))
            output[start : start + new] = scaled_dot_product_attention(
                q[None], k[None], v[None], attn_mask=visible, scale=scaling, enable_gqa=enable_gqa
            )[0].transpose(0, 1)
            if self._report is not None:
                logits = q @ k.repeat_interleave(len(q) // len(k), dim=0).transpose(1, 2)
                scale = q.shape[-1] ** -0.5 if scaling is None else scaling
                self._report(row, (logits * scale).masked_fill(~visible, float("-inf")))
            start += new
        return output


def register() -> None:
    """Serve the name ``torch_native``, which the host compares, with this backend."""
    register_attention_backend("torch_native")(ChainTorchBackend)
