"""A chain of drafted tokens that are accepted independently, each with one chance."""


def mean_accepted(chance: float, steps: int) -> float:
    """Mean length of the accepted prefix of ``steps`` tokens."""
    return sum(chance**length for length in range(1, steps + 1))


def chance_of(mean: float, steps: int) -> float:
    """The chance that gives ``mean`` accepted tokens of ``steps``."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_accepted(middle, steps) < mean else (low, middle)
    return low


def relaxed(strict: float, ratio: float, steps: int) -> float:
    """Mean accepted where ``ratio`` of the positions pass at any token; ``strict``, where none."""
    chance = chance_of(strict, steps)
    return mean_accepted(chance + (1 - chance) * ratio, steps)
