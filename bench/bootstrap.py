"""Confidence intervals of ratios by resampling clips, paired between rules."""

import numpy as np

RESAMPLES = 4000


def resamples(clips: int, seed: int = 0) -> np.ndarray:
    """How often each clip is drawn, ``[RESAMPLES, clips]``; the same draws for every rule."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clips, np.full(clips, 1 / clips), size=RESAMPLES).astype(np.float64)


def ratios(draws: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``sum(above) / sum(below)`` over each resample, ``[RESAMPLES]``; 0 / 0 is not a number.

    Args:
        draws: of ``resamples``.
        above, below: counts a clip, ``[clips]``; a clip's captions and follow-ups together, as
            they are drawn together.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((draws @ above) / (draws @ below))


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The central 95 % of resampled ``values``; None where they are not numbers."""
    if np.isnan(values).any():
        return None
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def differs(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two paired quantities differ by more than the noise: 0 outside the 95 % interval."""
    bounds = interval(first - second)
    return bounds is not None and not bounds[0] <= 0.0 <= bounds[1]
