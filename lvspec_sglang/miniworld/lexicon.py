"""Which words carry facts, and which fact each one states."""

from __future__ import annotations

from lvspec_sglang.miniworld.scene import (
    BACKDROPS,
    COLORS,
    COLUMNS,
    COUNTS,
    DIRECTIONS,
    EVENT_NOUNS,
    ROWS,
    SHAPES,
    SIZES,
)

ACT_VERBS = {
    "still": ("still", "motionless", "unmoved"),
    "move": ("moves", "glides", "drifts", "travels"),
    "bounce": ("bounces", "rebounds", "springs"),
    "turn": ("turns", "becomes", "switches"),
    "appear": ("appears", "emerges", "arrives"),
    "leave": ("vanishes", "disappears", "leaves"),
    "overtake": ("passes", "overtakes", "outruns"),
}

WORD_FACT: dict[str, tuple[str, str]] = {
    **{word: ("color", word) for word in (*COLORS, *BACKDROPS)},
    **{word: ("shape", word) for word in SHAPES},
    **{word: ("size", word) for word in SIZES},
    **{word: ("row", word) for word in ROWS},
    **{word: ("column", word) for word in COLUMNS},
    **{word: ("direction", word) for word in DIRECTIONS.values()},
    **{word: ("count", word) for word in COUNTS if word != "one"},
    **{word: ("event", word) for word in EVENT_NOUNS.values()},
    **{verb: ("act", act) for act, verbs in ACT_VERBS.items() for verb in verbs},
    **{word: ("order", word) for word in ("before", "after")},
    **dict.fromkeys(("no", "none", "nothing", "gone"), ("negation", "no")),
    **dict.fromkeys(("yes",), ("negation", "yes")),
}
"""Lower-case word to (kind of fact, value). Words that are not here are filler, and so is "one",
which mostly stands for an article."""


def fact_of(word: str) -> tuple[str, str] | None:
    """The fact a word of a text states, or None for filler; case and punctuation do not matter."""
    return WORD_FACT.get(word.strip(" .,;:!?'\"").lower())
