"""Forward batches of the draft, built over its private request table."""

from typing import Any, NamedTuple

import torch
from sglang.srt.model_executor.forward_batch_info import (
    CaptureHiddenMode,
    ForwardBatch,
    ForwardMode,
)


class Segment(NamedTuple):
    """Consecutive kept tokens of one request: kept indices ``[start, stop)`` of its row."""

    row: int
    start: int
    stop: int


def split_segments(segments: list[Segment], max_tokens: int) -> list[list[Segment]]:
    """Pack segments in order into groups of at most ``max_tokens`` tokens, cutting long ones."""
    groups: list[list[Segment]] = []
    room = 0
    for row, start, stop in segments:
        while start < stop:
            if room == 0:
                groups.append([])
                room = max_tokens
            taken = min(room, stop - start)
            groups[-1].append(Segment(row, start, start + taken))
            start += taken
            room -= taken
    return groups


def extend_batch(
    runner: Any,
    segments: list[Segment],
    slots: torch.Tensor,
    positions: torch.Tensor,
    rope: torch.Tensor,
) -> ForwardBatch:
    """A prefill of ``segments``.

    Args:
        runner: the draft's ``ModelRunner``.
        slots, positions: KV slot and sequence position of each token, ``[tokens]``.
        rope: M-RoPE positions, ``[3, tokens]``.
    """
    device = slots.device
    starts = [segment.start for segment in segments]
    stops = [segment.stop for segment in segments]
    lens = [stop - start for start, stop in zip(starts, stops, strict=True)]
    lens_device = torch.tensor(lens, dtype=torch.int32, device=device)
    batch = ForwardBatch(
        forward_mode=ForwardMode.EXTEND,
        batch_size=len(segments),
        input_ids=torch.zeros_like(positions),
        req_pool_indices=torch.tensor([segment.row for segment in segments], device=device),
        seq_lens=torch.tensor(stops, device=device),
        seq_lens_cpu=torch.tensor(stops),
        seq_lens_sum=sum(stops),
        out_cache_loc=slots,
        positions=positions,
        extend_num_tokens=sum(lens),
        extend_seq_lens=lens_device,
        extend_prefix_lens=torch.tensor(starts, dtype=torch.int32, device=device),
        extend_start_loc=lens_device.cumsum(0, dtype=torch.int32) - lens_device,
        extend_prefix_lens_cpu=starts,
        extend_seq_lens_cpu=lens,
        capture_hidden_mode=CaptureHiddenMode.NULL,
    )
    return _bind(runner, batch, rope)


def decode_batch(
    runner: Any,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    slots: torch.Tensor,
    seq_lens: torch.Tensor,
    positions: torch.Tensor,
    rope_delta: torch.Tensor,
    max_len: int,
) -> ForwardBatch:
    """One decode step, a token a row.

    Args:
        rows, tokens, slots: draft table row, input token and its KV slot, ``[batch]`` int64.
        seq_lens: length of the draft's context with the token in it, ``[batch]``.
        positions: sequence position of the token, ``[batch]``.
        rope_delta: M-RoPE position minus sequence position, ``[batch]``.
        max_len: host-side upper bound of ``seq_lens``.
    """
    on_host = seq_lens.is_cpu
    batch = ForwardBatch(
        forward_mode=ForwardMode.DECODE,
        batch_size=len(rows),
        input_ids=tokens,
        req_pool_indices=rows,
        seq_lens=seq_lens,
        seq_lens_cpu=seq_lens if on_host else torch.full((len(rows),), max_len),
        seq_lens_sum=int(seq_lens.sum()) if on_host else max_len * len(rows),
        out_cache_loc=slots,
        positions=positions,
        capture_hidden_mode=CaptureHiddenMode.NULL,
    )
    return _bind(runner, batch, (positions + rope_delta).repeat(3, 1))


def _bind(runner: Any, batch: ForwardBatch, rope: torch.Tensor) -> ForwardBatch:
    batch.mm_inputs = [None] * batch.batch_size
    batch.spec_algorithm = runner.spec_algorithm
    batch.global_num_token_non_padded_cpu = len(batch.positions)
    if runner.model_config.model_is_mrope:
        batch.mrope_positions = rope
    translator = runner.kv_index_translator
    translator.own_plan(batch).bind(batch, translator)
    return batch
