"""The contract of a pruner."""

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

import torch

Keys = Callable[[], torch.Tensor]


class Grid(NamedTuple):
    """A video's tokens in raster order: frames, rows of a frame, columns of a row."""

    frames: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.frames * self.rows * self.columns


def budget(tokens: int, keep: float) -> int:
    """How many of ``tokens`` a share of ``keep`` is: rounded up, so at least one."""
    return min(tokens, math.ceil(tokens * keep - 1e-9))


class Scores(Protocol):
    """Collects, chunk by chunk of the target's prefill, what a pruner wants to know of a prompt.

    Attributes:
        reads: ``attention`` (queries and keys, at every layer) or ``hidden`` (the hidden states
            entering attention, at ``layers``).
    """

    reads: ClassVar[str]

    def __init__(self, visual: torch.Tensor) -> None:
        """Start a prompt; ``visual`` ``[prompt]`` bool says where it holds visual tokens."""

    @staticmethod
    def layers(depth: int) -> tuple[int, ...]:
        """The layers read, of a target of ``depth`` layers."""

    def observe(
        self, layer: int, start: int, vectors: torch.Tensor, keys: Keys | None, scale: float
    ) -> None:
        """Take one layer's part of the tokens from ``start`` on.

        Args:
            vectors: queries ``[tokens, heads, dim]``, or hidden states ``[tokens, hidden]``.
            keys: returns those of every token up to the chunk's end, ``[start + tokens,
                kv_heads, dim]``; only for ``attention``.
            scale: attention's, only for ``attention``.
        """

    def of(self, positions: torch.Tensor) -> torch.Tensor:
        """The scores of visual ``positions`` (``[n]``), ``[n]`` float32; the prompt is over."""


class Pruner(Protocol):
    """Chooses the tokens of one video that the draft keeps.

    Attributes:
        scores: what it must know of the target's prefill, or None.
    """

    scores: ClassVar[type[Scores] | None]

    def choose(self, grid: Grid, keep: float, scores: torch.Tensor | None) -> torch.Tensor:
        """Ascending indices into the grid, ``[budget(grid.tokens, keep)]`` int64.

        Args:
            keep: share of tokens to keep, in (0, 1].
            scores: ``[grid.tokens]`` float32, for a pruner that reads them.
        """
