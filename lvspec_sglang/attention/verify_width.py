"""How many tokens of each request the verify forward holds."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# So many tokens a GPU computes in the time in which it reads its weights.
PADDED_TOKENS = 256
# Plan a forward of any width outside captured graphs: from its ``spec_info``, or see ``planning``.
ANY_WIDTH = {"ChainBackend", "TritonAttnBackend", "FlashAttentionBackend"}
PLANNED = "speculative_num_draft_tokens"


def verify_width(backend: Any, batch: int, tokens: int, width: int) -> int:
    """``tokens``, or ``width`` with padding, for a round of ``batch`` requests that feeds so many.

    Captured graphs are of the server's ``width``. So the forward is padded, unless that would be
    more than ``PADDED_TOKENS``, or ``backend.padded_tokens``, and the backend takes any width.
    """
    return width if batch * width <= padded_tokens(backend) else tokens


def padded_tokens(backend: Any) -> float:
    """Up to how many tokens a round is padded; no bound where ``backend`` has one width only."""
    own: float | None = getattr(backend, "padded_tokens", None)
    if own is not None:
        return own
    names = {kind.__name__ for kind in type(backend).__mro__}
    return PADDED_TOKENS if names & ANY_WIDTH else math.inf


@contextmanager
def planning(backend: Any, width: int) -> Iterator[None]:
    """Around a verify forward of ``width``: FA3 plans the server's outside captured graphs.

    (``flashattention_backend.py``, ``init_forward_metadata``, TARGET_VERIFY)
    """
    servers = getattr(backend, PLANNED, None)
    if servers is None:
        yield
        return
    setattr(backend, PLANNED, width)
    try:
        yield
    finally:
        setattr(backend, PLANNED, servers)
