"""Relevance as the share of attention on the video, a by-product of attention itself.

A verify query attends to the video and to the rest; ``exp(lse_video - lse_all)`` is the share of
its attention that lies on the video. Averaged over heads and the chosen layers it is the score.
"""

import torch


class AttentionMass:
    """Averages the attention share of the chosen layers."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers = layers
        self.listening = False
        self._sum: torch.Tensor | None = None
        self._seen = 0

    def observe(self, layer: int, mass: torch.Tensor) -> None:
        self._sum = mass if self._sum is None else self._sum + mass
        self._seen += 1

    def scores(self, batch: int, width: int, device: torch.device) -> torch.Tensor:
        assert self._sum is not None and self._seen == len(self.layers), (
            f"{self._seen} of {len(self.layers)} scoring layers reported"
        )
        mean = (self._sum / self._seen).view(batch, width)
        self._sum, self._seen = None, 0
        return mean


def visual_mass(logits: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """Share of attention on visual keys, mean over heads, ``[queries]`` float32.

    Args:
        logits: scaled and masked attention logits, ``[heads, queries, keys]``.
        visual: ``[keys]`` bool; without a visual key the share is 0.
    """
    logits = logits.float()
    video = logits.masked_fill(~visual, float("-inf")).logsumexp(dim=-1)
    return (video - logits.logsumexp(dim=-1)).exp().mean(dim=0)


def middle_third(layers: int) -> tuple[int, ...]:
    """The layers scored by default: the middle third, at least one."""
    first = layers // 3
    return tuple(range(first, max(first + 1, 2 * layers // 3)))
