"""Even in space and time, without looking: the choice depends on the grid alone."""

from collections.abc import Iterator
from typing import ClassVar

import torch

from lvspec_sglang.pruning.base import Grid, Scores, budget


class Uniform:
    """Halves the video along its longest side, and the budget with it, until a box has one token
    to keep: its middle one (ours)."""

    scores: ClassVar[type[Scores] | None] = None

    def choose(self, grid: Grid, keep: float, scores: torch.Tensor | None = None) -> torch.Tensor:
        cells = torch.arange(grid.tokens).view(grid)
        return torch.tensor(sorted(_spread(cells, budget(grid.tokens, keep))))


def _spread(box: torch.Tensor, kept: int) -> Iterator[int]:
    """``kept`` tokens of ``box``, ``[frames, rows, columns]`` of token indices."""
    if kept in (0, box.numel()):
        yield from box.flatten()[:kept].tolist()
    elif kept == 1:
        frames, rows, columns = (size // 2 for size in box.shape)
        yield int(box[frames, rows, columns])
    else:
        axis = max(range(3), key=lambda side: box.shape[side])
        size, half = box.shape[axis], box.shape[axis] // 2
        one, other = box.split([half, size - half], dim=axis)
        # A half token goes to either half, by Thue-Morse, or it would add up on one side.
        down = int(box[0, 0, 0]).bit_count() % 2
        share = min(one.numel(), (2 * kept * half + size - down) // (2 * size))
        yield from _spread(one, share)
        yield from _spread(other, kept - share)
