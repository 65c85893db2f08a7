"""What the draft asks of a family of video LLMs."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from lvspec_sglang.pruning import Grid


class Span(NamedTuple):
    """Prompt positions ``[start, stop)`` of item ``item``: pad tokens, filled by its features.

    Position ``start + i`` takes feature row ``first + i``; a row the item does not have leaves the
    pad token's own embedding.
    """

    item: int
    start: int
    stop: int
    first: int


class VisionFamily(Protocol):
    """How one family of video LLMs lays out and encodes its visual input.

    Attributes:
        spill: at most this many feature rows reach past a span, onto the tokens after it, where a
            later span takes precedence.
    """

    spill: int

    def language_model(self, model: Any) -> Any:
        """The inner decoder: ``(input_ids, positions, forward_batch, input_embeds) -> hidden``."""

    def spans(self, mm_inputs: Any) -> list[Span]:
        """Where the prompt holds visual tokens, in prompt order."""

    def grid(self, item: Any, tokens: int) -> Grid:
        """How the ``tokens`` tokens of a multimodal item lie in frames, rows and columns."""

    def encode(self, model: Any, mm_inputs: Any, items: Sequence[int]) -> dict[int, torch.Tensor]:
        """Features of at least ``items`` from the draft's own tower, item to ``[rows, hidden]``."""
