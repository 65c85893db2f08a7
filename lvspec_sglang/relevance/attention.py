"""Relevance from the target's own attention on the video, a by-product of the verify forward.

A query spreads its attention over the video and the rest: ``exp(lse_video - lse_all)`` is the share
on the video, its *mass*. Within the video it may lie flat or pick out a few tokens: its *focus* is
the Kullback-Leibler divergence from the flat one. Averaged over heads and the chosen layers, mass
is one score and mass times focus a better one (ours; measured in ``bench/results``).
"""

from math import ceil

import torch

MOST_LAYERS = 8


class AttentionMass:
    """Share of attention on the video, mean over heads and layers."""

    reads = "attention"

    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers = layers
        self.listening = False
        self._sum: torch.Tensor | None = None
        self._seen = 0

    @staticmethod
    def score(mass: torch.Tensor, focus: torch.Tensor) -> torch.Tensor:
        """Scores, ``[layers, queries]``, from ``[layers, queries, heads]`` each."""
        return mass.mean(dim=-1)

    def observe(self, mass: torch.Tensor, focus: torch.Tensor) -> None:
        score = self.score(mass, focus).sum(dim=0)
        self._sum = score if self._sum is None else self._sum + score
        self._seen += len(mass)

    def scores(self, rows: torch.Tensor, width: int, reach: int) -> torch.Tensor:
        assert self._sum is not None and self._seen == len(self.layers), (
            f"{self._seen} of {len(self.layers)} scoring layers reported"
        )
        mean = (self._sum / self._seen).view(-1, width)
        self._sum, self._seen = None, 0
        return mean


class AttentionFocus(AttentionMass):
    """Mass times focus: how much, and how pointedly, the heads look at the video."""

    @staticmethod
    def score(mass: torch.Tensor, focus: torch.Tensor) -> torch.Tensor:
        return (mass * focus).mean(dim=-1)


def visual_attention(
    logits: torch.Tensor, visual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mass and focus of attention on visual keys, ``[queries, heads]`` float32 each.

    With p the attention within the n visual keys, the focus is ``log n - entropy(p)`` and the
    entropy is ``lse_video - sum(p * logits)``: one pass over keys gives both. Without a visual
    key both are 0.

    Args:
        logits: scaled and masked attention logits, ``[heads, queries, keys]``.
        visual: ``[keys]`` bool; every query sees every visual key.
    """
    count = visual.sum()
    logits = logits.float()
    video = logits.masked_fill(~visual, float("-inf"))
    lse = video.logsumexp(dim=-1)
    mass = (lse - logits.logsumexp(dim=-1)).exp()
    share = (video - lse[..., None]).exp()
    mean_logit = (share * video.masked_fill(~visual, 0.0)).sum(dim=-1)
    focus = count.log() - (lse - mean_logit)
    return mass.T, torch.where(count > 0, focus, 0.0).T


def middle_third(layers: int) -> tuple[int, ...]:
    """The layers scored by default: of the middle third every n-th, at most ``MOST_LAYERS``.

    Each costs a read of the keys, so a deep target is sampled.
    """
    third = range(layers // 3, max(layers // 3 + 1, 2 * layers // 3))
    return tuple(third[:: ceil(len(third) / MOST_LAYERS)])
