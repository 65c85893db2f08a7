"""How visual a position is. Pure tensor code, no SGLang; a scorer is one file here."""

from lvspec_sglang.relevance.attention import AttentionMass
from lvspec_sglang.relevance.base import Scorer
from lvspec_sglang.relevance.random import RandomScores

SCORERS: dict[str, type[Scorer]] = {"attention": AttentionMass, "random": RandomScores}
