"""The contract of a relevance scorer."""

from typing import Protocol

import torch


class Scorer(Protocol):
    """Scores the queries of a verify forward.

    Attributes:
        reads: what the target's forward must report:
            ``attention``, to ``observe``; ``hidden``, as ``CosineTop`` asks; ``nothing``.
        layers: target layers that are read; empty for none.
        listening: whether anybody asks for the scores of the forward to come.
    """

    reads: str
    layers: tuple[int, ...]
    listening: bool

    def observe(self, mass: torch.Tensor, focus: torch.Tensor) -> None:
        """Take attention on visual tokens, ``[layers, queries, heads]`` float32 each.

        Args:
            mass: share of the attention that lies on visual tokens, 0 to 1.
            focus: how far it picks among them, in nats; see ``attention.visual_attention``.
        """

    def scores(self, rows: torch.Tensor, width: int, reach: int) -> torch.Tensor:
        """Relevance of each query of the last verify forward, ``[batch, width]`` float32.

        Args:
            rows: request row of each request of the batch, ``[batch]`` int64.
            width: queries a request.
            reach: host-side upper bound of the requests' lengths.
        """
