"""A rule against the random control at equal T."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lvspec_sglang.bench.bootstrap import interval, ratios
from lvspec_sglang.bench.rules import ALONE, STRICT, Rule
from lvspec_sglang.bench.tally import Counts, kept_samples

CONTROL = "random"


def compare(
    rule: Rule, rules: Sequence[Rule], counts: Mapping[str, Counts], draws: np.ndarray
) -> dict[str, Any]:
    """``over_random``: kept minus the control's at the same T, with interval and verdict.

    The control is random relaxation of the same plausibility floor where the run has it, and
    without a floor otherwise; strict verification is the start of its curve. Empty where the
    control's curve does not reach the rule's T.
    """
    if rule.server is None or rule.name == STRICT or rule.family.startswith(CONTROL):
        return {}
    families = {member.family for member in rules}
    _, word, floor = rule.family.partition(" floor ")
    family = f"{CONTROL}{word}{floor}"
    family = family if family in families else CONTROL
    curve = [member.name for member in rules if member.family == family]
    if not curve:
        return {}
    curve.insert(0, STRICT)
    alone = counts[ALONE]
    once = np.ones((1, draws.shape[1]))
    point = _over(counts[rule.name], [counts[name] for name in curve], alone, once)
    if np.isnan(point).any():
        return {}
    samples = _over(counts[rule.name], [counts[name] for name in curve], alone, draws)
    bounds = interval(samples[~np.isnan(samples)])
    assert bounds is not None
    verdict = "better" if bounds[0] > 0 else "worse" if bounds[1] < 0 else "noise"
    return {
        "over_random": {
            "control": family,
            "kept": float(point[0]),
            "ci95": bounds,
            "verdict": verdict,
        }
    }


def _over(own: Counts, curve: Sequence[Counts], alone: Counts, draws: np.ndarray) -> np.ndarray:
    """Kept minus the curve's kept at the rule's T, for each resample; NaN beyond the curve."""
    t, kept = ratios(draws, own.accepted, own.rounds), kept_samples(own, alone, draws)
    ts = np.stack([ratios(draws, c.accepted, c.rounds) for c in curve], axis=1)
    kepts = np.stack([kept_samples(c, alone, draws) for c in curve], axis=1)
    order = ts.argsort(axis=1)
    ts, kepts = np.take_along_axis(ts, order, 1), np.take_along_axis(kepts, order, 1)
    at = [np.interp(*row, left=np.nan, right=np.nan) for row in zip(t, ts, kepts, strict=True)]
    return np.asarray(kept - np.array(at))
