"""No pruning: the draft keeps every token."""

from typing import ClassVar

import torch

from lvspec_sglang.pruning.base import Grid, Scores


class Whole:
    """Keeps every token, whatever share is asked for."""

    scores: ClassVar[type[Scores] | None] = None

    def choose(self, grid: Grid, keep: float, scores: torch.Tensor | None) -> torch.Tensor:
        return torch.arange(grid.tokens)
