"""Mass and focus of a target's attention beside its backend, which is left as it is."""

from typing import Any

import torch
from sglang.srt.layers.attention.base_attn_backend import SharedReadEnds
from sglang.srt.layers.radix_attention import RadixAttention

from lvspec_sglang.attention.mass_kernel import paged_visual_attention
from lvspec_sglang.attention.masses import Masses
from lvspec_sglang.attention.variants import is_scored


def watch(runner: Any, masses: Masses, visual: torch.Tensor) -> None:
    """Run the mass kernel after the attention of the scored layers, in verify forwards.

    At that point the chain's keys are in the pool. Call this before graphs are captured.

    Args:
        runner: the target's ``ModelRunner``.
        visual: which positions of a row are visual, ``[rows, context]`` bool.
    """
    table = runner.req_to_token_pool.req_to_token
    pool = runner.token_to_kv_pool

    def after(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        q, _, _, batch = args[:4]
        if batch.forward_mode.is_target_verify() and is_scored(masses.scorer):
            q = q.view(-1, layer.tp_q_head_num, layer.head_dim)
            paged_visual_attention(
                q,
                pool.get_key_buffer(layer.layer_id),
                table,
                batch.req_pool_indices,
                batch.seq_lens,
                visual,
                layer.scaling,
                *masses.of(layer.layer_id, len(q)),
            )

    for module in runner.model.modules():
        if isinstance(module, RadixAttention) and module.layer_id in masses.scorer.layers:
            module.register_forward_hook(after, with_kwargs=True)
    read_table_until(runner.attn_backend, SharedReadEnds.POST_REPLAY)


def read_table_until(backend: Any, end: SharedReadEnds) -> None:
    """Have the host change no request's row of the table before the ``end`` of a verify forward."""
    declared = backend.shared_read_ends
    backend.shared_read_ends = lambda mode: end if mode.is_target_verify() else declared(mode)
