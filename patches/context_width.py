"""Attention backends hold whole rows of the request table, not just the context's length.

A round drafts and verifies beyond the tokens it commits, so that near the end of the context its
sequences are longer than the context. The host's backends size what a captured graph reads by the
context: FA3's kernels then read past a row of the page table, in the last row past its memory, and
Triton's slots of a full batch are written past the end of theirs.
"""

from collections.abc import Callable
from typing import Any

from lvspec_sglang.patches.base import Patch


def over_whole_rows(original: Callable[..., Any], *, model_runner: Any) -> Any:
    """Build the runner's attention backends as if the context were as long as a row."""
    config = model_runner.model_config
    length = config.context_len
    config.context_len = model_runner.req_to_token_pool.req_to_token.shape[1]
    try:
        return original(model_runner=model_runner)
    finally:
        config.context_len = length


PATCHES = (
    Patch(
        "sglang.srt.model_executor.model_runner_components.attention_backend_setup"
        ".build_attention_backends",
        ("model_runner",),
        over_whole_rows,
        "AROUND",
        "a request at the end of the context reads slots that are nobody's",
        "the host's backends size their buffers by the request table",
    ),
)
