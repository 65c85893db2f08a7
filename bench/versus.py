"""A rule against the random control at equal T."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lvspec_sglang.bench.bootstrap import interval, ratios
from lvspec_sglang.bench.rules import (
    ALONE,
    BALANCED,
    BARE,
    DEFAULT,
    STRICT,
    Floors,
    Rule,
    curve_name,
    loose,
)
from lvspec_sglang.bench.tally import Counts, kept_samples
from lvspec_sglang.config import PRESETS, RelaxConfig


def compare(
    rule: Rule, rules: Sequence[Rule], counts: Mapping[str, Counts], draws: np.ndarray
) -> dict[str, Any]:
    """Kept minus a control's kept at the same T, with interval and verdict.

    ``over_random`` of a guided rule: against random relaxation. ``over_default`` of FLy: against
    the default scorer. The control has the rule's plausibility floors, or those of the preset
    ``balanced``, where the run has such a curve and it reaches the rule's T, and none otherwise;
    strict verification is where it begins. Left out where that does not reach it either.
    """
    meaning = rule.meaning()
    if meaning is None or meaning["relax"] == asdict(PRESETS[STRICT]):
        return {}
    found = {}
    if meaning["relevance"] != "random":
        floors = Floors.of(RelaxConfig(**meaning["relax"]))
        found["over_random"] = _against("random", floors, rule, rules, counts, draws)
    if meaning["relax"]["rule"] == "fly":
        found["over_default"] = _against(DEFAULT, BALANCED, rule, rules, counts, draws)
    return {key: value for key, value in found.items() if value is not None}


def _against(
    scorer: str,
    floors: Floors,
    rule: Rule,
    rules: Sequence[Rule],
    counts: Mapping[str, Counts],
    draws: np.ndarray,
) -> dict[str, Any] | None:
    own, alone = counts[rule.name], counts[ALONE]
    for at in dict.fromkeys((floors, BARE)):
        curve = [counts[member.name] for member in rules if _on_curve(member, scorer, at)]
        if not curve:
            continue
        curve.append(counts[STRICT])
        point = _over(own, curve, alone, np.ones((1, draws.shape[1])))
        if not np.isnan(point).any():
            break
    else:
        return None
    samples = _over(own, curve, alone, draws)
    bounds = interval(samples[~np.isnan(samples)])
    assert bounds is not None
    verdict = "better" if bounds[0] > 0 else "worse" if bounds[1] < 0 else "noise"
    return {
        "control": curve_name(scorer, at),
        "kept": float(point[0]),
        "ci95": bounds,
        "verdict": verdict,
    }


def _on_curve(rule: Rule, scorer: str, floors: Floors) -> bool:
    meaning = rule.meaning()
    if meaning is None or not (ratio := meaning["relax"]["loose_ratio"]):
        return False
    (point,) = loose(scorer, (ratio,), floors)
    return meaning == point.meaning()


def _over(own: Counts, curve: Sequence[Counts], alone: Counts, draws: np.ndarray) -> np.ndarray:
    """Kept minus the curve's kept at the rule's T, for each resample; NaN beyond the curve."""
    t, kept = ratios(draws, own.accepted, own.rounds), kept_samples(own, alone, draws)
    ts = np.stack([ratios(draws, c.accepted, c.rounds) for c in curve], axis=1)
    kepts = np.stack([kept_samples(c, alone, draws) for c in curve], axis=1)
    order = ts.argsort(axis=1)
    ts, kepts = np.take_along_axis(ts, order, 1), np.take_along_axis(kepts, order, 1)
    at = [np.interp(*row, left=np.nan, right=np.nan) for row in zip(t, ts, kepts, strict=True)]
    return np.asarray(kept - np.array(at))
