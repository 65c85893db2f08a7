"""LLaVA verifies drafted tokens as what they are: text after the prompt.

The host's LLaVA takes a verify batch for a prefill, because TARGET_VERIFY counts as an extend, and
compares positions with the places of pictures that are long in the KV cache. A verify batch has
none of a prefill's lengths: with more than one request the shapes do not match and it raises.
"""

from collections.abc import Callable
from typing import Any

from lvspec_sglang.patches.base import Patch


def forward(
    original: Callable[..., Any], self: Any, input_ids: Any, positions: Any, forward_batch: Any
) -> Any:
    """Hand a verify batch straight to the language model, as the host does with a decode batch."""
    if forward_batch.forward_mode.is_target_verify():
        return self.language_model(input_ids, positions, forward_batch)
    return original(self, input_ids, positions, forward_batch)


PATCHES = (
    Patch(
        "sglang.srt.models.llava.LlavaBaseForCausalLM.forward",
        ("self", "input_ids", "positions", "forward_batch"),
        forward,
        "AROUND",
        "a LLaVA target fails to verify more than one request at a time",
        "LlavaBaseForCausalLM.forward merges pictures in prefills only",
    ),
)
