"""What the attention of scored layers leaves for the scorer to read after the forward."""

import torch

from lvspec_sglang.relevance.base import Scorer


class Masses:
    """Static buffers, because a replayed graph runs no Python that could tell a scorer."""

    def __init__(self, scorer: Scorer, queries: int, heads: int, device: torch.device) -> None:
        """Make room for ``queries`` of ``heads`` heads in each layer ``scorer`` reads."""
        self.scorer = scorer
        self._held = {
            layer: torch.zeros(2, queries, heads, device=device) for layer in scorer.layers
        }

    def of(self, layer: int, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where ``layer`` leaves mass and focus, ``[queries, heads]`` float32 each."""
        mass, focus = self._held[layer][:, :queries]
        return mass, focus

    def report(self, queries: int) -> None:
        """Tell the scorer of the last forward's ``queries``."""
        for layer in self._held:
            self.scorer.observe(layer, *self.of(layer, queries))
