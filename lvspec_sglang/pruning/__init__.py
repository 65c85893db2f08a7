"""Which of a video's tokens the draft keeps. Pure tensor code, no SGLang; a pruner is one file."""

from lvspec_sglang.pruning.base import Grid, Pruner, Scores, budget
from lvspec_sglang.pruning.none import Whole
from lvspec_sglang.pruning.unbiased import AlignmentChange
from lvspec_sglang.pruning.uniform import Uniform
from lvspec_sglang.pruning.verifier import VerifierGuided

PRUNERS: dict[str, type[Pruner]] = {
    "none": Whole,
    "uniform": Uniform,
    "verifier": VerifierGuided,
    "unbiased": AlignmentChange,
}

__all__ = ["PRUNERS", "Grid", "Pruner", "Scores", "budget"]
