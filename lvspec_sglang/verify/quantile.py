"""The running quantile that turns relevance scores into a threshold. Pure tensor code, no SGLang.

(The ring and its warm-up are ours; LVSpec, arXiv 2604.05650, relaxes the least visual positions.)
"""

from typing import NamedTuple

import torch

MIN_HELD = 4


def running_quantile(scores: torch.Tensor, held: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """The score that about ``ratio`` of a request's recent scores do not exceed.

    With ``n = floor(ratio * held)`` in float32, the n-th smallest held score; -inf if n is 0 or
    fewer than ``MIN_HELD`` scores are held. Of equal scores all are at or below it.

    Args:
        scores: ``[batch, size]`` float32, of which the first ``held`` of a row count.
        held: ``[batch]`` int64, at most ``size``.
        ratio: ``[batch]`` float32, 0 to 1.

    Returns:
        ``[batch]`` float32.
    """
    empty = torch.arange(scores.shape[1], device=scores.device) >= held[:, None]
    ascending = scores.masked_fill(empty, torch.inf).sort(dim=1).values
    rank = (ratio * held).floor().long()
    value = ascending.gather(1, (rank - 1).clamp(min=0)[:, None])[:, 0]
    return value.masked_fill((rank < 1) | (held < MIN_HELD), -torch.inf)


class ScoreRing:
    """The most recent relevance scores of every request, a row a request, on the device.

    Attributes:
        scores: ``[rows, size]`` float32.
        count: ``[rows]`` int64, scores pushed since the row was reset.
    """

    def __init__(self, rows: int, size: int = 64, device: torch.device | str = "cpu") -> None:
        assert size >= MIN_HELD, f"a ring of {size} scores never gives a threshold"
        self.size = size
        self.scores = torch.zeros(rows, size, dtype=torch.float32, device=device)
        self.count = torch.zeros(rows, dtype=torch.int64, device=device)

    def reset(self, row: int, scores: torch.Tensor) -> None:
        """Forget a row's scores for ``scores``, ``[n]``, before another request takes the row."""
        self.scores[row, : len(scores)] = scores
        self.count[row].fill_(len(scores))

    def take(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of a row's scores and count, for ``put``."""
        return self.scores[row].clone(), self.count[row].clone()

    def put(self, row: int, saved: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Give a row the scores that ``take`` took."""
        self.scores[row], self.count[row] = saved

    def push(self, rows: torch.Tensor, scores: torch.Tensor, lens: torch.Tensor) -> None:
        """Append the first ``lens`` scores of each row; the oldest make room.

        Args:
            rows: ``[batch]`` int64, distinct.
            scores: ``[batch, K]`` float32, K at most ``size``.
            lens: ``[batch]`` integer, 0 to K.
        """
        width = scores.shape[1]
        assert width <= self.size, f"{width} scores at once do not fit a ring of {self.size}"
        places = torch.arange(width, device=scores.device)
        slots = (self.count[rows][:, None] + places) % self.size
        old = self.scores[rows[:, None], slots]
        self.scores[rows[:, None], slots] = torch.where(places < lens[:, None], scores, old)
        self.count.index_add_(0, rows, lens.long())

    def threshold(self, rows: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
        """The running quantile of each row.

        Args:
            rows: ``[batch]`` int64.
            ratio: ``[batch]`` float32, 0 to 1.

        Returns:
            ``[batch]`` float32.
        """
        return running_quantile(self.scores[rows], self._held(rows), ratio)

    def lowest(self, rows: torch.Tensor) -> torch.Tensor:
        """The lowest score that each of ``rows``, ``[batch]``, holds, float32; inf without one."""
        empty = torch.arange(self.size, device=rows.device) >= self._held(rows)[:, None]
        return self.scores[rows].masked_fill(empty, torch.inf).amin(dim=1)

    def _held(self, rows: torch.Tensor) -> torch.Tensor:
        return self.count[rows].clamp(max=self.size)


class Recent(NamedTuple):
    """A batch's rows of a ring.

    Attributes:
        ring: every request's recent scores.
        rows: ``[batch]`` int64.
    """

    ring: ScoreRing
    rows: torch.Tensor
