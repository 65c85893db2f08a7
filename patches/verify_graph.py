"""Captured verify graphs of a causal chain: without a mask, and one for each way to attend.

The host captures a verify graph with the mask a drafted tree needs, which a chain never fills, so
that a backend would replay whatever the mask held. And it captures one graph a batch size; how a
verify forward attends (with visual scores or without, the video shared or not) is decided when a
batch is known, so each way needs its own graph. The host has labelled variants of a graph, but
only its own models may name them.
"""

from typing import Any

from lvspec_sglang.patches.base import Patch


def without_mask(result: Any, *args: Any, **kwargs: Any) -> Any:
    """Take the mask out of the stand-in for a verify batch."""
    if result is not None:
        result.custom_mask = None
    return result


def variants(
    result: Any, model_runner: Any, capture_forward_mode: Any, captured_req_width: int = 0
) -> Any:
    """Give the target's verify graphs the variants its attention backend asks for."""
    if result is not None or not capture_forward_mode.is_target_verify():
        return result
    return getattr(model_runner.attn_backend, "verify_variants", None)


_MASK = "a verify graph would be captured with a mask that a chain never fills"
_MASK_UNTIL = "the host captures chains (topk 1) without a mask"

PATCHES = (
    Patch(
        "sglang.srt.model_executor.runner.decode_cuda_graph_runner.DecodeCudaGraphRunner"
        ".get_spec_info",
        ("self", "num_tokens"),
        without_mask,
        "AFTER",
        _MASK,
        _MASK_UNTIL,
    ),
    Patch(
        "sglang.srt.speculative.spec_info.create_dummy_verify_input",
        ("spec_algorithm", "custom_mask", "num_tokens_per_req", "is_draft_worker"),
        without_mask,
        "AFTER",
        _MASK,
        _MASK_UNTIL,
    ),
    Patch(
        "sglang.srt.layers.attention.graph_variants.create_dsv41_candidate_graph_variants",
        ("model_runner", "capture_forward_mode", "captured_req_width"),
        variants,
        "AFTER",
        "one graph would have to score and share whether asked to or not",
        "an attention backend may name the variants of its graphs",
    ),
)
