"""How many tokens of each request the verify forward holds."""

import math
from typing import Any


def verify_width(backend: Any, batch: int, tokens: int, width: int) -> int:
    """``tokens``, or ``width`` with padding, for a round of ``batch`` requests that feeds so many.

    Most of the host's backends plan the server's ``width`` for every verify forward, whatever it
    holds (FA3: ``flashattention_backend.py``, eager TARGET_VERIFY), and captured graphs are of that
    width. So the forward is padded, unless ``backend`` has ``padded_tokens``: then it takes any
    width, and is padded up to so many tokens, which a GPU reads its weights no longer for.
    """
    padded = batch * width <= getattr(backend, "padded_tokens", math.inf)
    return width if padded else tokens
