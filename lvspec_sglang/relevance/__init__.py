"""How visual a position is. Pure tensor code, no SGLang; a scorer is one file here."""

from collections.abc import Callable

from lvspec_sglang.relevance.attention import AttentionFocus, AttentionMass, middle_third
from lvspec_sglang.relevance.base import Scorer
from lvspec_sglang.relevance.cosine import CosineTop
from lvspec_sglang.relevance.random import RandomScores

SCORERS: dict[str, Callable[[tuple[int, ...]], Scorer]] = {
    "focus": AttentionFocus,
    "attention": AttentionMass,
    "cosine": CosineTop,
    "random": RandomScores,
}


def make_scorer(name: str, layers: tuple[int, ...], count: int) -> Scorer:
    """The scorer ``name`` on ``layers`` of a target of ``count`` layers; empty for its default.

    Raises:
        ValueError: a layer the target does not have.
    """
    default = (count - 1,) if name == "cosine" else middle_third(count)
    if any(layer >= count for layer in layers):
        raise ValueError(f"layers {list(layers)}: the target has layers 0 to {count - 1}")
    return SCORERS[name](layers or default)
