"""Facts back from text: what a caption or an answer states, whoever wrote it.

Only the words that carry facts are read, so any filler around them, or a mixture of two writers'
habits, parses the same.
"""

from __future__ import annotations

import re

from lvspec_sglang.miniworld.lexicon import WORD_FACT
from lvspec_sglang.miniworld.scene import ACTS, BACKDROPS, COLORS, COUNTS

ACT_PRIORITY = ("overtake", "bounce", "turn", "appear", "leave", "move", "still")
NEEDED = {
    "move": ("direction", "end"),
    "overtake": ("direction", "end", "other"),
    "bounce": ("direction",),
    "turn": ("new_color",),
}
assert set(ACT_PRIORITY) == set(ACTS)


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def _stated(words: list[str], kind: str) -> list[str]:
    return [WORD_FACT[word][1] for word in words if WORD_FACT.get(word, ("",))[0] == kind]


def parse_caption(text: str) -> dict[str, str]:
    """Facts of a caption, keyed as `scene.facts` keys them; what is not stated has no key."""
    found: dict[str, str] = {}
    for sentence in re.split(r"[.!?]", text):
        words = words_of(sentence)
        backdrop = [word for word in words if word in BACKDROPS]
        nouns = _stated(words, "event")
        if _stated(words, "shape"):
            _parse_thing(words, found)
        elif backdrop:
            found.setdefault("backdrop", backdrop[0])
            counts = [word for word in words if word in COUNTS]
            if counts:
                found.setdefault("count", counts[0])
        elif nouns and "event.1" not in found:
            found |= {f"event.{rank}": noun for rank, noun in enumerate(nouns, 1)}
    return found


def _parse_thing(words: list[str], found: dict[str, str]) -> None:
    shapes = _stated(words, "shape")
    colors = [word for word in words if word in COLORS]
    acts = _stated(words, "act")
    sizes = _stated(words, "size")
    places = [
        f"{a} {b}" for a, b in zip(_stated(words, "row"), _stated(words, "column"), strict=False)
    ]
    headings = _stated(words, "direction")
    act = next((act for act in ACT_PRIORITY if act in acts), "")
    own = {
        "color": colors[:1],
        "size": sizes[:1],
        "place": places[:1],
        "act": [act] if act else [],
        "direction": headings[:1],
        "end": places[1:2],
        "new_color": colors[1:2],
        "other": shapes[1:2],
    }
    for key, values in own.items():
        if values:
            found.setdefault(f"{shapes[0]}.{key}", values[0])


def is_complete(found: dict[str, str]) -> bool:
    """Whether a parsed caption states all that a caption has to state."""
    shapes = {key.split(".")[0] for key in found if key.endswith(".act")}
    needed = {"backdrop", "count", "event.1"}
    for shape in shapes:
        own = ("color", "size", "place", *NEEDED.get(found[f"{shape}.act"], ()))
        needed |= {f"{shape}.{key}" for key in own}
    return bool(shapes) and needed <= found.keys()


def parse_answer(kind: str, text: str) -> str | None:
    """The value an answer to a question of this kind states, or None where it states none.

    Raises ValueError for a kind that no question has.
    """
    words = words_of(text)
    shapes, colors = _stated(words, "shape"), [word for word in words if word in COLORS]
    none = ["none"] * ("none" in words)
    if kind in ("count", "moving"):
        values = [word for word in words if word in COUNTS]
    elif kind == "backdrop":
        values = [word for word in words if word in BACKDROPS]
    elif kind == "color":
        values = colors
    elif kind in ("size", "event", "order"):
        values = _stated(words, kind)
    elif kind == "exists":
        return _parse_exists(words, shapes)
    elif kind == "turned":
        values = [f"{shapes[0]} {' '.join(colors[:2])}"] if shapes and len(colors) > 1 else []
        values = values or none
    elif kind == "mover":
        values = shapes or none
    elif kind == "end":
        rows, columns = _stated(words, "row"), _stated(words, "column")
        values = ["gone"] if "gone" in words else []
        if rows and columns:
            values.append(f"{rows[0]} {columns[0]}")
    else:
        raise ValueError(f"unknown kind of question {kind!r}: take the kind from truth.jsonl")
    return values[0] if values else None


def _parse_exists(words: list[str], shapes: list[str]) -> str | None:
    """An answer about existence has to agree with itself: its first word and what it then says."""
    if not words or words[0] not in ("yes", "not", "no", "right"):
        return None
    affirmed = words[0] in ("yes", "not")
    denied = "no" in words[1:]
    if affirmed and shapes and not denied:
        return shapes[-1]
    if not affirmed and denied and not shapes:
        return "none"
    return "contradiction" if shapes or denied else None
