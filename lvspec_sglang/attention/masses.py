"""What the attention of scored layers leaves for the scorer to read after the forward."""

import torch

from lvspec_sglang.relevance.base import Scorer


class Masses:
    """Static buffers, because a replayed graph runs no Python that could tell a scorer."""

    def __init__(self, scorer: Scorer, queries: int, heads: int, device: torch.device) -> None:
        """Make room for ``queries`` of ``heads`` heads in each layer ``scorer`` reads."""
        self.scorer = scorer
        self._held = torch.zeros(len(scorer.layers), 2, queries, heads, device=device)

    def of(self, layer: int, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where ``layer`` leaves mass and focus, ``[queries, heads]`` float32 each."""
        mass, focus = self._held[self.scorer.layers.index(layer), :, :queries]
        return mass, focus

    def report(self, queries: int) -> None:
        """Tell the scorer of the last forward's ``queries``."""
        self.scorer.observe(*self._held[:, :, :queries].unbind(1))
