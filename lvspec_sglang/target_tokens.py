"""The target's own token at every verified position, by the host's sampler."""

import dataclasses
from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.layers.sampler import apply_custom_logit_processor
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo


def choose_target_tokens(
    sampler: Any,
    logits: torch.Tensor,
    info: SamplingBatchInfo,
    positions: torch.Tensor,
    width: int,
) -> torch.Tensor:
    """Choose the target's token after each verified one, ``[batch, width]`` int64.

    Penalties, grammar mask, logit bias and custom processors change ``logits`` in place, as they
    would in a decode step; temperature, top-k, top-p, min-p and seeds act on a copy, so that
    log-probabilities can be read off ``logits`` afterwards.

    Args:
        sampler: the target's ``Sampler``.
        logits: ``[batch * width, vocab]``.
        info: the batch's sampling parameters, a row a request.
        positions: sequence position of each verified token, ``[batch * width]``.
        width: verified tokens a request.
    """
    rows = _repeat_rows(info, width)
    rows.apply_logits_bias(logits)
    if info.has_custom_logit_processor:
        apply_custom_logit_processor(logits, info, num_tokens_in_batch=width)
    if info.is_all_greedy:
        return logits.argmax(dim=-1).view(-1, width)
    output = LogitsProcessorOutput(next_token_logits=logits.clone())
    return sampler(output, rows, False, None, None, positions).long().view(-1, width)


def _repeat_rows(info: SamplingBatchInfo, width: int) -> SamplingBatchInfo:
    def repeat(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value.repeat_interleave(width, dim=0)

    return dataclasses.replace(
        info,
        temperatures=repeat(info.temperatures),
        top_ps=repeat(info.top_ps),
        top_ks=repeat(info.top_ks),
        min_ps=repeat(info.min_ps),
        sampling_seed=repeat(info.sampling_seed),
        logit_bias=repeat(info.logit_bias),
        acc_additive_penalties=repeat(info.acc_additive_penalties),
        acc_scaling_penalties=repeat(info.acc_scaling_penalties),
        has_custom_logit_processor=False,
        custom_logit_processor=None,
        custom_params=None,
        penalizer_orchestrator=None,
        return_sampling_masks=None,
        return_sampling_support_logprobs=None,
        sampling_mask_batch_indices=None,
        sampling_support_logprobs_capture_indices=None,
    )
