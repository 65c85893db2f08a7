"""The contract of a relevance scorer."""

from typing import Protocol

import torch


class Scorer(Protocol):
    """Scores the queries of a verify forward.

    Attributes:
        layers: target layers whose attention must be reported to ``observe``; empty for none.
        listening: whether anybody asks for the scores of the forward to come.
    """

    layers: tuple[int, ...]
    listening: bool

    def __init__(self, layers: tuple[int, ...]) -> None: ...

    def observe(self, layer: int, mass: torch.Tensor) -> None:
        """Take the share of a layer's attention that lies on visual tokens, ``[queries]``."""

    def scores(self, batch: int, width: int, device: torch.device) -> torch.Tensor:
        """Relevance of each query of the last verify forward, ``[batch, width]`` float32."""
