"""Qwen2-VL and Qwen2.5-VL: one item a clip or picture, M-RoPE."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from lvspec_sglang.draft.vision.family import Span
from lvspec_sglang.pruning import Grid


class Qwen2VLFamily:
    """The host's own feature functions, given the item on the draft's device."""

    spill = 0

    def language_model(self, model: Any) -> Any:
        return model.model

    def spans(self, mm_inputs: Any) -> list[Span]:
        spans = []
        for index, item in enumerate(mm_inputs.mm_items):
            first = 0
            for start, last in item.offsets:
                spans.append(Span(index, start, last + 1, first))
                first += last + 1 - start
        return spans

    def grid(self, item: Any, tokens: int) -> Grid:
        # The host makes one item of all clips of a request.
        frames, height, width = item.video_grid_thw.reshape(-1, 3).T.tolist()
        patches = sum(map(math.prod, zip(frames, height, width, strict=True)))
        merged = math.isqrt(patches // tokens)
        grid = Grid(sum(frames), height[0] // merged, width[0] // merged)
        alike = len({*height}) == len({*width}) == 1 and grid.tokens == tokens
        return grid if alike else Grid(1, 1, tokens)

    def encode(self, model: Any, mm_inputs: Any, items: Sequence[int]) -> dict[int, torch.Tensor]:
        return {item: self._encode_item(model, mm_inputs.mm_items[item]) for item in items}

    def _encode_item(self, model: Any, source: Any) -> torch.Tensor:
        grid = "video_grid_thw" if source.is_video() else "image_grid_thw"
        on_device = SimpleNamespace(
            feature=torch.as_tensor(source.feature).to(model.visual.device),
            **{grid: getattr(source, grid)},
        )
        encode = model.get_video_feature if source.is_video() else model.get_image_feature
        return encode([on_device])
