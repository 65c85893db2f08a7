"""A row of the request table holds what a decode round reserves.

The host reserves slots for two rounds beyond a request's committed tokens, since with overlap
scheduling it plans one round before it knows how the last one ended. Its table is wider than the
context by one round and four. Near the end of the context it so writes a request's slots over the
first ones of the next row, and the tokens of that row's request are another's from then on.
"""

from typing import Any

from lvspec_sglang.patches.base import Patch


def hold_the_reserve(result: Any, *args: Any, **kwargs: Any) -> int:
    """The columns of a row beyond the context's length, at least those reserved at once."""
    from sglang.srt.mem_cache.allocation_sizing import get_alloc_reserve_per_decode

    return max(int(result), get_alloc_reserve_per_decode())


PATCHES = (
    Patch(
        "sglang.srt.mem_cache.allocation_sizing.get_req_to_token_extra_context_len",
        (),
        hold_the_reserve,
        "AFTER",
        "a request at the end of the context overwrites the slots of another",
        "the host widens its table by the reserve at a page size of 1 too",
    ),
)
