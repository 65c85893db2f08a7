"""Wording habits: which of several equivalent phrases a writer takes, as a function of content."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field

OVERLAP = 0.42
"""Share of (slot, key) pairs where the draft's habit is the target's; the rest is its own."""


def _stable(*parts: object) -> int:
    return zlib.crc32("/".join(map(str, parts)).encode())


@dataclass
class Habit:
    """A writer's habit; `stray` is the chance of any other phrase instead, for training only."""

    name: str
    stray: float = 0.0
    rng: random.Random = field(default_factory=random.Random)

    def pick(self, slot: str, options: tuple[str, ...], key: object = "") -> str:
        """The phrase for a slot, decided by `key` (content the text has already told).

        With the same slot and key a habit always takes the same phrase, so that greedy decoding
        of a trained model is sharp.
        """
        if self.stray and self.rng.random() < self.stray:
            return self.rng.choice(options)
        return options[self._index(slot, key) % len(options)]

    def _index(self, slot: str, key: object) -> int:
        shared = _stable("overlap", slot, key) % 1000 < 1000 * OVERLAP
        owner = "target" if shared else self.name
        return _stable(owner, slot, key) >> 8


TARGET = Habit("target")
DRAFT = Habit("draft")
HABITS = {"target": TARGET, "draft": DRAFT}
