"""LLaVA's vision tower computes in the dtype of the projector it feeds.

The host loads the tower in float16 whatever the model's dtype, so that its features do not fit a
projector of any other: every picture fails. The tower casts its own input, so only its weights
need to change.
"""

from collections.abc import Callable
from typing import Any

from lvspec_sglang.patches.base import Patch


def load_weights(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Load the weights, then give the tower the projector's dtype."""
    result = original(self, *args, **kwargs)
    self.vision_tower.to(next(self.multi_modal_projector.parameters()).dtype)
    return result


PATCHES = (
    Patch(
        "sglang.srt.models.llava.LlavaBaseForCausalLM.load_weights",
        ("self", "weights"),
        load_weights,
        "AROUND",
        "a LLaVA model in any dtype but float16 fails at its first picture",
        "the host loads the tower of LlavaBaseForCausalLM in the model's dtype",
    ),
)
