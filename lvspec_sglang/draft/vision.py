"""What the draft needs to know of a vision family: spans, features, positions, inner model.

A family is chosen by the draft model's class; a new one is one class in ``FAMILIES``.
"""

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import torch

FEATURE_CACHE_BYTES = 256 << 20


class Span(NamedTuple):
    """Prompt positions ``[start, stop)`` filled by features ``[first, first + stop - start)``."""

    item: int
    start: int
    stop: int
    first: int


class VisionFamily(Protocol):
    """How one family of video LLMs lays out and encodes its visual input."""

    def language_model(self, model: Any) -> Any:
        """The inner decoder: ``(input_ids, positions, forward_batch, input_embeds) -> hidden``."""

    def spans(self, mm_inputs: Any) -> list[Span]:
        """Where the prompt holds visual tokens."""

    def encode(self, model: Any, mm_inputs: Any, item: int) -> torch.Tensor:
        """Features of one item from the draft's own tower, ``[tokens, hidden]``."""


class Qwen2VLFamily:
    """Qwen2-VL and Qwen2.5-VL: one item a clip or picture, M-RoPE."""

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

    def encode(self, model: Any, mm_inputs: Any, item: int) -> torch.Tensor:
        source = mm_inputs.mm_items[item]
        device = model.visual.device
        grid = "video_grid_thw" if source.is_video() else "image_grid_thw"
        on_device = SimpleNamespace(
            feature=torch.as_tensor(source.feature).to(device), **{grid: getattr(source, grid)}
        )
        encode = model.get_video_feature if source.is_video() else model.get_image_feature
        return encode([on_device])


FAMILIES: dict[str, VisionFamily] = {
    "Qwen2VLForConditionalGeneration": Qwen2VLFamily(),
    "Qwen2_5_VLForConditionalGeneration": Qwen2VLFamily(),
}


class FeatureCache:
    """Visual features of recent items, keyed by content, least recently used out first."""

    def __init__(self, limit_bytes: int = FEATURE_CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._features: OrderedDict[int, torch.Tensor] = OrderedDict()

    def get(self, key: int) -> torch.Tensor | None:
        if key in self._features:
            self._features.move_to_end(key)
        return self._features.get(key)

    def put(self, key: int, features: torch.Tensor) -> None:
        self._features[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.limit_bytes:
            self.bytes -= self._features.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        self._features.clear()
        self.bytes = 0


class PromptEmbedder:
    """Input embeddings of prompt positions: the draft's token table and its own vision tower."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.family = FAMILIES[type(model).__name__]
        self.decoder = self.family.language_model(model)
        self.cache = FeatureCache()

    def embed(self, ids: torch.Tensor, positions: torch.Tensor, mm_inputs: Any) -> torch.Tensor:
        """Embed ``ids`` (``[n]``, pad values on visual tokens) of prompt ``positions`` (``[n]``).

        Returns ``[n, hidden]``. Features are computed only for items that hold a position asked
        for, and once for each content while they stay in the cache.
        """
        table = self.decoder.embed_tokens
        embeds = table(ids.clamp(0, table.num_embeddings - 1))
        for span in self.family.spans(mm_inputs) if mm_inputs is not None else ():
            inside = (positions >= span.start) & (positions < span.stop)
            if bool(inside.any()):
                features = self._features(mm_inputs, span.item)
                rows = positions[inside] - span.start + span.first
                embeds[inside] = features[rows].to(embeds.dtype)
        return embeds

    def _features(self, mm_inputs: Any, item: int) -> torch.Tensor:
        key = mm_inputs.mm_items[item].hash
        features = self.cache.get(key)
        if features is None:
            features = self.family.encode(self.model, mm_inputs, item)
            self.cache.put(key, features)
        return features


def rope_positions(positions: torch.Tensor, mm_inputs: Any, delta: int) -> torch.Tensor:
    """M-RoPE positions of sequence ``positions`` (``[n]``), ``[3, n]`` int64."""
    table = getattr(mm_inputs, "mrope_positions", None)
    rope = (positions + delta).repeat(3, 1)
    if table is not None:
        table = table.to(positions.device)
        given = positions < table.shape[1]
        rope[:, given] = table[:, positions[given]].to(rope.dtype)
    return rope
