"""What the draft asks of a family of video LLMs."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from sglang.srt.managers.schedule_batch import MM_PAD_SHIFT_VALUE

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


def visible_spans(family: "VisionFamily", mm_inputs: Any, ids: Sequence[int]) -> list[Span]:
    """The family's spans as far as the prompt ``ids`` holds their pad tokens.

    A session's turn may cut its history off before or within a video, whose item stays.

    Args:
        mm_inputs: the host's multimodal inputs, or None.
    """
    visible = []
    for span in family.spans(mm_inputs) if mm_inputs is not None else ():
        pads = np.asarray(ids[span.start : span.stop]) >= MM_PAD_SHIFT_VALUE
        length = len(pads) if pads.all() else int(pads.argmin())
        if length:
            visible.append(span._replace(stop=span.start + length))
    return visible


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
