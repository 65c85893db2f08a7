"""The draft's eyes: where a prompt holds visual tokens, and what the draft sees there.

A family of video LLMs is chosen by the draft model's class; a new one is one class in
``FAMILIES``.
"""

from lvspec_sglang.draft.vision.embedder import (
    FAMILIES,
    PromptEmbedder,
    prompt_rope,
    rope_positions,
)
from lvspec_sglang.draft.vision.family import Span, VisionFamily, visible_spans

__all__ = [
    "FAMILIES",
    "PromptEmbedder",
    "Span",
    "VisionFamily",
    "prompt_rope",
    "rope_positions",
    "visible_spans",
]
