"""The verify forward: a chain of tokens after each request's committed ones, run by the host."""

from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.managers.schedule_batch import ScheduleBatch
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.speculative.eagle_utils import eagle_prepare_for_verify
from sglang.srt.speculative.spec_utils import record_stream_each, record_stream_for_v2_verify

from lvspec_sglang.attention.chain_plan import Context
from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.spec_input import ChainVerifyInput


def prepare_verify(
    batch: ScheduleBatch,
    chain: torch.Tensor,
    view: DraftKVView,
    req_to_token_pool: Any,
    target_worker: Any,
    contexts: Sequence[Context],
) -> tuple[Any, bool]:
    """The target's forward batch over ``chain``, and whether a captured graph runs it.

    ``batch.spec_info`` becomes the verify input. No mask is built: the chain is causal.

    Args:
        chain: the bonus token, the drafted ones and padding, ``[batch, width]`` int64.
        view: knows each row's slots and M-RoPE offset.
        contexts: what of each request is known on the host.
    """
    rows, device = batch.req_pool_indices, chain.device
    width = chain.shape[1]
    positions = batch.seq_lens[:, None] + torch.arange(width, device=device)
    rope = positions + view.rope_delta[rows][:, None]
    batch.spec_info = ChainVerifyInput(
        draft_token=chain.flatten(),
        custom_mask=None,
        positions=positions.flatten(),
        retrieve_index=None,
        retrieve_next_token=None,
        retrieve_next_sibling=None,
        retrieve_cum_len=None,
        spec_steps=width - 1,
        topk=1,
        draft_token_num=width,
        capture_hidden_mode=CaptureHiddenMode.NULL,
        seq_lens_sum=None,
        seq_lens_cpu=None,
        prepared_out_cache_loc=view.slots(rows, positions).flatten(),
        prepared_mrope_positions=rope.flatten().repeat(3, 1),
        contexts=contexts,
    )
    stream = torch.get_device_module(device).current_stream()
    record_stream_for_v2_verify(batch, batch.spec_info, stream)
    prepared = eagle_prepare_for_verify(batch.spec_info, req_to_token_pool, batch, target_worker)
    record_stream_each((batch.input_ids, batch.out_cache_loc), stream)
    return prepared


def without_padding(rows: torch.Tensor, width: int, count: int) -> torch.Tensor:
    """Of ``rows``, ``[batch * width, ...]``, the first ``count`` of each request's ``width``."""
    return rows if count == width else rows.unflatten(0, (-1, width))[:, :count].flatten(0, 1)
