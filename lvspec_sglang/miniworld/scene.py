"""A clip's content: objects on lanes, what each one does, and the facts that follow from it."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "cross", "ring")
SIZES = ("small", "large")
BACKDROPS = ("white", "gray", "black", "pink")
COUNTS = ("zero", "one", "two", "three", "four")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
DIRECTIONS = {
    ("x", 1): "rightward",
    ("x", -1): "leftward",
    ("y", 1): "downward",
    ("y", -1): "upward",
}
ACTS = ("still", "move", "bounce", "turn", "appear", "leave", "overtake")
EVENT_NOUNS = {
    "bounce": "bounce",
    "turn": "change",
    "appear": "arrival",
    "leave": "exit",
    "overtake": "pass",
}

FPS = 8
FRAMES = 56
SECONDS = FRAMES / FPS
SAMPLED = (0, 4, 8, 12, 16, 21, 25, 29, 33, 38, 42, 46, 50, 55)
"""Frame indices a Qwen2.5-VL server samples from such a clip at 2 fps (numpy linspace to int)."""
GROUPS = len(SAMPLED) // 2
HELD_OUT = 10**9
"""Seeds from here on are for evaluation only; training stays below."""
TUNING = 20_000
"""Held-out seeds, counted from `HELD_OUT`, from here on are for tuning: not to report on."""

SLOTS = (1 / 6, 1 / 2, 5 / 6)
WALL_MARGIN = 0.12


@dataclass(frozen=True)
class Thing:
    """One object.

    `path` is a polyline of (seconds, place along the lane in 0..1); `born` and `gone` bound the
    time it is visible; `turn_at` is when its colour becomes `new_color`.
    """

    color: str
    shape: str
    size: str
    act: str
    lane: int
    path: tuple[tuple[float, float], ...]
    born: float = 0.0
    gone: float = SECONDS
    turn_at: float = SECONDS
    new_color: str = ""
    other: str = ""

    def along(self, seconds: float) -> float:
        """Place along the lane at a time, by linear interpolation of `path`."""
        if seconds <= self.path[0][0]:
            return self.path[0][1]
        for (t0, u0), (t1, u1) in pairwise(self.path):
            if seconds <= t1:
                return u0 + (u1 - u0) * (seconds - t0) / (t1 - t0)
        return self.path[-1][1]

    def visible(self, seconds: float) -> bool:
        return self.born <= seconds < self.gone

    def color_at(self, seconds: float) -> str:
        return self.new_color if self.new_color and seconds >= self.turn_at else self.color


@dataclass(frozen=True)
class Scene:
    """A clip: backdrop, lane axis ("x": lanes are rows, "y": lanes are columns), things, events.

    `things` are in the order of SHAPES, which is the order captions name them in; `events` holds
    the acts that happen at an instant, earliest first.
    """

    seed: int
    backdrop: str
    axis: str
    things: tuple[Thing, ...]
    events: tuple[str, ...]

    def place(self, thing: Thing, seconds: float) -> tuple[str, str]:
        """Row word and column word of a thing at a time."""
        slot = min(2, int(thing.along(seconds) * 3))
        row, column = (thing.lane, slot) if self.axis == "x" else (slot, thing.lane)
        return ROWS[row], COLUMNS[column]

    def direction(self, thing: Thing) -> str:
        """Direction word of a thing's first motion, or "" where it does not move."""
        steps = [u1 - u0 for (_, u0), (_, u1) in pairwise(thing.path) if abs(u1 - u0) > 1e-6]
        return DIRECTIONS[self.axis, 1 if steps[0] > 0 else -1] if steps else ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def facts(scene: Scene) -> dict[str, str]:
    """Everything a caption has to state, as flat keys: backdrop, count, event.N and shape.*."""
    found = {"backdrop": scene.backdrop, "count": COUNTS[len(scene.things)]}
    for thing in scene.things:
        own = {
            "color": thing.color,
            "size": thing.size,
            "place": " ".join(scene.place(thing, thing.born)),
            "act": thing.act,
        }
        if scene.direction(thing):
            own["direction"] = scene.direction(thing)
        if thing.act in ("move", "overtake"):
            own["end"] = " ".join(scene.place(thing, SECONDS))
        if thing.act == "turn":
            own["new_color"] = thing.new_color
        if thing.act == "overtake":
            own["other"] = thing.other
        found |= {f"{thing.shape}.{key}": value for key, value in own.items()}
    for rank, act in enumerate(scene.events, 1):
        found[f"event.{rank}"] = EVENT_NOUNS[act]
    return found


def event_time(group: int, rng: random.Random) -> float:
    """A time in seconds strictly between the two sampled frames of a temporal group."""
    first, second = SAMPLED[2 * group], SAMPLED[2 * group + 1]
    return (first + rng.uniform(1.2, second - first - 1.2)) / FPS


def make_scene(seed: int, busy: bool = False) -> Scene:
    """The scene of a seed: the same seed gives the same scene on every machine.

    A busy scene is drawn from the same world with more things and events, so that a clip teaches
    more; evaluation uses plain ones.
    """
    rng = random.Random(seed)
    while True:
        scene = _draw(seed, busy, rng)
        if scene is not None and not _stray_overtake(scene):
            return scene


def _draw(seed: int, busy: bool, rng: random.Random) -> Scene | None:
    count = rng.choices((2, 3, 4), (15, 40, 45) if busy else (35, 45, 20))[0]
    happenings = rng.choices((1, 2, 3), (5, 35, 60) if busy else (25, 50, 25))[0]
    acts = rng.sample(list(EVENT_NOUNS), happenings)
    roles = acts + ["overtaken"] * ("overtake" in acts)
    if len(roles) > count:
        return None
    roles += rng.choices(("still", "move"), (45, 55), k=count - len(roles))
    rng.shuffle(roles)
    shapes = rng.sample(SHAPES, count)
    colors = rng.sample(COLORS, count)
    spare = [color for color in COLORS if color not in colors]
    lanes = _lanes(roles, rng)
    if lanes is None:
        return None
    times = _event_times(acts, rng)
    sign = rng.choice((1, -1))
    things = []
    for role, shape, color, (lane, slot) in zip(roles, shapes, colors, lanes, strict=True):
        act = "move" if role == "overtaken" else role
        path = _path(role, slot, sign, times.get("overtake" if role == "overtaken" else role), rng)
        thing = Thing(color, shape, rng.choice(SIZES), act, lane, path)
        when = times.get(act, 0.0)
        extra: dict[str, Any] = {}
        if act == "appear":
            extra = {"born": when}
        elif act == "leave":
            extra = {"gone": when}
        elif act == "turn":
            extra = {"turn_at": when, "new_color": rng.choice(spare)}
        elif act == "overtake":
            extra = {"other": shapes[roles.index("overtaken")]}
        things.append(Thing(**(vars(thing) | extra)))
    things.sort(key=lambda thing: SHAPES.index(thing.shape))
    order = tuple(sorted(acts, key=lambda act: times[act]))
    return Scene(seed, rng.choice(BACKDROPS), rng.choice("xy"), tuple(things), order)


def _event_times(acts: list[str], rng: random.Random) -> dict[str, float]:
    """Distinct groups for the events; a bounce or a pass needs room on both sides."""
    while True:
        groups = rng.sample(range(1, GROUPS - 1), len(acts))
        drawn = dict(zip(acts, groups, strict=True))
        if all(2 <= drawn.get(act, 2) <= 4 for act in ("bounce", "overtake")):
            return {act: event_time(group, rng) for act, group in drawn.items()}


def _lanes(roles: list[str], rng: random.Random) -> list[tuple[int, int]] | None:
    """A (lane, slot) each; only two things that stay in place may share a lane."""
    resting = [i for i, r in enumerate(roles) if r in ("still", "turn", "appear", "leave")]
    lanes = rng.sample(range(3), min(3, len(roles)))
    slots = [rng.randrange(3) for _ in roles]
    if len(roles) == 4:
        if len(resting) < 2:
            return None
        guest, host = rng.sample(resting, 2)
        slots[host], slots[guest] = rng.sample(range(3), 2)
        lanes.insert(guest, -1)
        lanes[guest] = lanes[host]
    return list(zip(lanes, slots, strict=True))


def _path(
    role: str, slot: int, sign: int, when: float | None, rng: random.Random
) -> tuple[tuple[float, float], ...]:
    if role == "move":
        goal = rng.choice([other for other in range(3) if other != slot])
        start = rng.uniform(0.0, 1.5)
        duration = rng.uniform(4.0, 5.2) if abs(goal - slot) == 2 else rng.uniform(2.5, 3.5)
        return (start, SLOTS[slot]), (start + duration, SLOTS[goal])
    if role == "bounce":
        assert when is not None
        near, far = (SLOTS[0], 1 - WALL_MARGIN) if sign > 0 else (SLOTS[2], WALL_MARGIN)
        return (max(0.0, when - 3.5), near), (when, far), (min(SECONDS, when + 3.5), near)
    if role in ("overtake", "overtaken"):
        assert when is not None
        slow = (0.27, 0.27 + 0.25 * when / SECONDS)
        if role == "overtaken":
            path = [(0.0, slow[0]), (SECONDS, 0.52)]
        else:
            speed = 0.19
            start = when - (slow[1] - 0.12) / speed
            path = [(start, 0.12), (min(SECONDS, start + 0.72 / speed), 0.84)]
            path[1] = (path[1][0], 0.12 + speed * (path[1][0] - start))
        return tuple((t, u if sign > 0 else 1 - u) for t, u in path)
    return ((0.0, SLOTS[slot]),)


def _stray_overtake(scene: Scene) -> bool:
    """Whether some thing passes another in the same direction without being told to."""
    movers = [thing for thing in scene.things if len(thing.path) > 1]
    for i, a in enumerate(movers):
        for b in movers[i + 1 :]:
            if a.other == b.shape or b.other == a.shape:
                continue
            for frame in range(FRAMES - 1):
                t0, t1 = frame / FPS, (frame + 1) / FPS
                (a0, a1), (b0, b1) = (a.along(t0), a.along(t1)), (b.along(t0), b.along(t1))
                if (a1 - a0) * (b1 - b0) > 0 and (a0 - b0) * (a1 - b1) <= 0:
                    return True
    return False
