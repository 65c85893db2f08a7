"""How visual a position is. Pure tensor code, no SGLang; a scorer is one file here."""

from collections.abc import Callable, Sequence

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


def make_scorer(
    name: str, layers: tuple[int, ...], count: int, measured: Sequence[int] = ()
) -> Scorer:
    """The scorer ``name`` on ``layers`` of a target of ``count`` layers; empty for its default.

    Args:
        measured: layers whose attention was found to tell facts from wording, the default of the
            scorers that read attention; empty where nobody looked.

    Raises:
        ValueError: a layer the target does not have.
    """
    default = (count - 1,) if name == "cosine" else tuple(measured) or middle_third(count)
    chosen = layers or default
    if not all(isinstance(layer, int) and 0 <= layer < count for layer in chosen):
        raise ValueError(f"layers {list(chosen)}: the target has layers 0 to {count - 1}")
    return SCORERS[name](chosen)
