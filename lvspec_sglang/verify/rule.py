"""The accept rule on batched tensors: the torch reference."""

from typing import NamedTuple

import torch


class Verdict(NamedTuple):
    """What a round commits.

    Attributes:
        accept_lens: ``[batch]`` int32; committed tokens of each request: the accepted drafted
            ones and the target's own token after them.
        tokens: ``[batch, K + 1]`` int64; the committed tokens first, then don't-care values.
    """

    accept_lens: torch.Tensor
    tokens: torch.Tensor


def accept_strict(drafted: torch.Tensor, target: torch.Tensor, limit: torch.Tensor) -> Verdict:
    """Accept the longest prefix of drafted tokens that the target chose too.

    With ``target`` sampled from the target's distribution at each position this keeps that
    distribution exactly (SGLang's rule for chains without draft probabilities).

    Args:
        drafted: ``[batch, K]`` int64, the draft's chain.
        target: ``[batch, K + 1]`` int64, the target's token after the last committed token and
            after each drafted one.
        limit: ``[batch]`` int64, the most drafted tokens to accept; 0 decodes a request plainly.
    """
    steps = drafted.shape[1]
    match = drafted == target[:, :steps]
    match &= torch.arange(steps, device=drafted.device) < limit[:, None]
    accepted = match.int().cumprod(dim=1).sum(dim=1)
    return Verdict((accepted + 1).int(), target)
