"""How many drafted tokens each round accepts, where the models' own agreement means nothing."""

import json
from pathlib import Path

import numpy as np

from lvspec_sglang.bench.geometric import chance_of


def accepted_trace(mean: float, steps: int, rounds: int = 4096, seed: int = 0) -> list[int]:
    """Accepted tokens of ``rounds`` rounds with this mean: each token agrees with one chance.

    Raises:
        ValueError: a mean that no chance of agreement gives.
    """
    if not 0 < mean < steps:
        raise ValueError(f"--accepted {mean}: above 0 and below the {steps} drafted tokens")
    agrees = np.random.default_rng(seed).random((rounds, steps)) < chance_of(mean, steps)
    return [int(n) for n in agrees.cumprod(axis=1).sum(axis=1)]


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
