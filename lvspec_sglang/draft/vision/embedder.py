"""Input embeddings and M-RoPE positions of prompt tokens, as the draft sees them."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from lvspec_sglang.counters import count
from lvspec_sglang.draft.vision.family import Span, VisionFamily
from lvspec_sglang.draft.vision.llava import LlavaFamily
from lvspec_sglang.draft.vision.qwen2_vl import Qwen2VLFamily

FEATURE_CACHE_BYTES = 256 << 20

FAMILIES: dict[str, VisionFamily] = {
    "LlavaQwenForCausalLM": LlavaFamily(),
    "Qwen2VLForConditionalGeneration": Qwen2VLFamily(),
    "Qwen2_5_VLForConditionalGeneration": Qwen2VLFamily(),
}


class FeatureCache:
    """Visual features of recent items, keyed by content, least recently used out first."""

    def __init__(self, limit_bytes: int = FEATURE_CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._features: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(self, key: Hashable) -> torch.Tensor | None:
        if key in self._features:
            self._features.move_to_end(key)
        return self._features.get(key)

    def put(self, key: Hashable, features: torch.Tensor) -> None:
        if key in self._features:
            self.bytes -= self._features.pop(key).nbytes
        self._features[key] = features
        self.bytes += features.nbytes
        # The newcomer stays in any case: the next chunk of its prefill asks for it.
        while self.bytes > self.limit_bytes and len(self._features) > 1:
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

    def embed(
        self, ids: torch.Tensor, positions: torch.Tensor, mm_inputs: Any, spans: Sequence[Span]
    ) -> torch.Tensor:
        """Embed ``ids`` (``[n]``, pad values on visual tokens) at ``positions`` (``[n]``).

        Args:
            spans: of the prompt's visual tokens, in ``mm_inputs``.

        Returns ``[n, hidden]``. Features are computed only if a position asked for needs them,
        and once for each content while they stay in the cache.
        """
        table = self.decoder.embed_tokens
        embeds = table(ids.clamp(0, table.num_embeddings - 1))
        needed = []
        for span in spans:
            inside = (positions >= span.start) & (positions < span.stop + self.family.spill)
            if bool(inside.any()):
                needed.append((span, inside))
        items = sorted({span.item for span, _ in needed})
        features = self._features(mm_inputs, items) if items else {}
        for span, inside in needed:
            rows = positions - span.start + span.first
            filled = inside & (rows < len(features[span.item]))
            embeds[filled] = features[span.item][rows[filled]].to(embeds.dtype)
        return embeds

    def _features(self, mm_inputs: Any, items: Sequence[int]) -> dict[int, torch.Tensor]:
        keys = {item: self._key(mm_inputs.mm_items[item]) for item in items}
        features = {
            item: found for item, key in keys.items() if (found := self.cache.get(key)) is not None
        }
        missing = [item for item in items if item not in features]
        if missing:
            fresh = self.family.encode(self.model, mm_inputs, missing)
            count("draft_encodes", len(fresh))
            for item, encoded in fresh.items():
                self.cache.put(self._key(mm_inputs.mm_items[item]), encoded)
            features.update(fresh)
        return features

    @staticmethod
    def _key(item: Any) -> Hashable:
        """The same pixels are other features as a picture and as a video frame."""
        return item.hash, item.is_video()


def prompt_rope(mm_inputs: Any, length: int) -> tuple[torch.Tensor | None, int]:
    """M-RoPE positions of a prompt of ``length`` tokens, and how far off the sequence's they go on.

    A session's turn may have cut off the end of what they were computed for.

    Returns ``[3, length]`` int64 or less, or None where they are plain; and the difference.
    """
    table = getattr(mm_inputs, "mrope_positions", None)
    delta = getattr(mm_inputs, "mrope_position_delta", None)
    if table is not None and table.shape[1] > length:
        table = table[:, :length]
        return table, int(table.max()) + 1 - length
    return table, 0 if delta is None else int(delta.flatten()[0])


def rope_positions(positions: torch.Tensor, table: torch.Tensor | None, delta: int) -> torch.Tensor:
    """M-RoPE positions of sequence ``positions`` (``[n]``), ``[3, n]`` int64.

    Args:
        table: those of the prompt, ``[3, prompt]``; None where they are plain.
        delta: of the positions after it, minus the sequence's.
    """
    rope = (positions + delta).repeat(3, 1)
    if table is not None:
        table = table.to(positions.device)
        given = positions < table.shape[1]
        rope[:, given] = table[:, positions[given]].to(rope.dtype)
    return rope
