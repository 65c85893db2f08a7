"""Drafted tokens beside the target's own, as the target's logits see them: the torch reference."""

from typing import NamedTuple

import torch


class Compared(NamedTuple):
    """What there is to say of each drafted token, ``[batch, K]`` each; see ``rule.Evidence``.

    Attributes:
        relevance: float32, without NaN.
        log_ratio: float32, may be NaN or infinite where a logit is.
        guarded: bool; so is what has a relevance or a ratio that is no number.
    """

    relevance: torch.Tensor
    log_ratio: torch.Tensor
    guarded: torch.Tensor


def compare(
    drafted: torch.Tensor,
    target: torch.Tensor,
    logits: torch.Tensor,
    relevance: torch.Tensor,
    rows: torch.Tensor,
    stops: torch.Tensor,
    guarded: torch.Tensor,
) -> Compared:
    """Compare x_i with y_i.

    Args:
        drafted: x, ``[batch, K]`` int64.
        target: y, ``[batch, K + 1]`` int64.
        logits: the target's, ``[batch * (K + 1), vocab]``.
        relevance: of the positions, ``[batch, K]`` float32, its last dimension contiguous.
        rows: the requests', ``[batch]`` int64.
        stops: tokens that end a row's request, ``[rows, n]`` int64; -1 for none.
        guarded: tokens never relaxed, ``[m]`` bool; one beyond is as the last.
    """
    batch, steps = drafted.shape
    tokens = torch.stack([drafted, target[:, :steps]], dim=2)
    pair = logits.view(batch, steps + 1, -1)[:, :steps].gather(2, tokens).float()
    log_ratio = pair[..., 0] - pair[..., 1]
    ends = stops[rows][:, None, None, :] == tokens[..., None]
    never = guarded[tokens.clamp(max=len(guarded) - 1)]
    # Of a token that was forbidden, or of numbers that overflowed, nothing is known.
    unknown = relevance.isnan() | ~log_ratio.isfinite()
    return Compared(
        relevance.nan_to_num(0.0, torch.inf, -torch.inf),
        log_ratio,
        never.any(dim=2) | ends.any(dim=(2, 3)) | unknown,
    )
