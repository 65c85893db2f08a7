"""An answer ends before a decode round can no longer reserve what it needs.

The host lets a request grow until it fills the KV pool, where that is smaller than the context. A
round of speculation reserves slots for two chains beyond the committed tokens; the last request
that can no longer get them is aborted with an error, and its answer is lost.
"""

from typing import Any

from lvspec_sglang.patches.base import Patch

CAPACITY, LONGEST, LONGEST_INPUT = 0, 4, 5  # places in what a worker says of itself


def leave_the_reserve(result: tuple[Any, ...], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """Requests so much shorter that the pool holds the longest and its reserve."""
    from sglang.srt.mem_cache.allocation_sizing import get_alloc_reserve_per_decode

    longest = result[CAPACITY] - 1 - get_alloc_reserve_per_decode()
    less = max(0, result[LONGEST] - longest)
    told = list(result)
    told[LONGEST] -= less
    told[LONGEST_INPUT] -= less
    return tuple(told)


PATCHES = (
    Patch(
        "sglang.srt.managers.tp_worker.TpModelWorker.get_worker_info",
        ("self",),
        leave_the_reserve,
        "AFTER",
        "a request that fills the KV pool loses its answer to an error 500",
        "the host counts a round's reserve in the longest request it admits",
    ),
)
