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
    """The scorer ``name`` on ``layers`` of a target of ``count`` layers; empty for its default."""
    default = (count - 1,) if name == "cosine" else middle_third(count)
    return SCORERS[name](layers or default)
