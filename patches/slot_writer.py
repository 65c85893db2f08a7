"""The slots of a decode reservation are written into the request table with torch.

The host writes them with a Triton kernel, or with its compiled CPU engine's operator; the CPU
platform has neither.
"""

import torch

from lvspec_sglang.patches.base import Patch


def assign_req_to_token_pool(
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    start_offset: torch.Tensor,
    end_offset: torch.Tensor,
    out_cache_loc: torch.Tensor,
    batch_size: int,
) -> None:
    """Write each request's new slots into its row.

    Args:
        req_pool_indices: row of each request, ``[batch]``.
        req_to_token: the request table, ``[rows, max_context]``, changed in place.
        start_offset, end_offset: columns to fill in each row, ``[batch]``.
        out_cache_loc: the new slots, request after request, ``[sum(end - start)]``.
        batch_size: number of requests.
    """
    taken = 0
    rows, starts, ends = (t.tolist() for t in (req_pool_indices, start_offset, end_offset))
    for row, start, end in zip(rows, starts, ends, strict=True):
        count = end - start
        req_to_token[row, start:end] = out_cache_loc[taken : taken + count]
        taken += count


PATCHES = (
    Patch(
        "sglang.srt.mem_cache.allocation.assign_req_to_token_pool_func",
        (
            "req_pool_indices",
            "req_to_token",
            "start_offset",
            "end_offset",
            "out_cache_loc",
            "batch_size",
        ),
        assign_req_to_token_pool,
        "REPLACE",
        "the host's writer is a Triton kernel",
        "the host honours PlatformCapabilities.supports_triton in this function too",
    ),
)
