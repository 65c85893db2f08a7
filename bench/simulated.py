"""How many drafted tokens each round accepts, where the models' own agreement means nothing."""

import json
from pathlib import Path

import numpy as np

from lvspec_sglang.bench.geometric import chance_of

GOLDEN = (5**0.5 - 1) / 2


def accepted_trace(mean: float, steps: int, rounds: int = 4096) -> list[int]:
    """Accepted tokens of ``rounds`` rounds with this mean: each token agrees with one chance.

    Evenly spread, by multiples of the golden ratio, not at random: any few dozen rounds on end,
    which are a run, have the mean too.

    Raises:
        ValueError: a mean that no chance of agreement gives.
    """
    if not 0 < mean < steps:
        raise ValueError(f"--accepted {mean}: above 0 and below the {steps} drafted tokens")
    at_least = chance_of(mean, steps) ** np.arange(1, steps + 1)
    shares = np.arange(rounds)[:, None] * GOLDEN % 1
    return [int(n) for n in (shares < at_least).sum(axis=1)]


def read_trace(path: Path, steps: int) -> list[int]:
    """A trace from a JSON list of accepted tokens a round.

    Raises:
        ValueError: anything else in the file, or a round that accepts more than ``steps``.
    """
    given = json.loads(path.read_text())
    fine = isinstance(given, list) and given
    if not fine or not all(isinstance(n, int) and 0 <= n <= steps for n in given):
        raise ValueError(f"--trace {path}: a JSON list of whole numbers from 0 to {steps}")
    return list(given)
