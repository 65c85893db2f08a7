"""What has happened so far at each video token: labels that teach the language model to watch.

A video token sees the tokens before it, so that at its place it can know the history of the object
it shows, and of the clip.
"""

from __future__ import annotations

import numpy as np

from lvspec_sglang.miniworld.render import HEIGHT, RADIUS, WIDTH, center
from lvspec_sglang.miniworld.scene import (
    ACTS,
    COLUMNS,
    EVENT_NOUNS,
    FPS,
    GROUPS,
    ROWS,
    SAMPLED,
    Scene,
    Thing,
)

CELL = 28
EVENTS = tuple(EVENT_NOUNS)
MOST_EVENTS = 3
CLASSES = {
    "act": len(ACTS) + 1,
    "start": len(ROWS) * len(COLUMNS) + 1,
    "group": GROUPS,
    **{f"event.{rank}": len(EVENTS) + 1 for rank in range(1, MOST_EVENTS + 1)},
}
"""Kinds of label with their number of classes. "act" and "start" are of the object the token shows,
0 where it shows none; "event.N" is the clip's Nth event, 0 before it has happened."""


def act_so_far(scene: Scene, thing: Thing, first: float, second: float) -> str:
    """What a thing is seen to do up to the two frames of a group, at these times in seconds."""
    moved = abs(thing.along(second) - thing.along(0.0)) > 0.01
    if thing.act in EVENTS and event_seconds(scene, thing.act) > second:
        return "move" if moved else "still"
    if thing.act == "leave" and thing.gone > second:
        return "still"
    return thing.act if thing.act != "move" or moved else "still"


def event_seconds(scene: Scene, act: str) -> float:
    """When the event of this act happens."""
    thing = next(thing for thing in scene.things if thing.act == act)
    if act == "bounce":
        return thing.path[1][0]
    if act == "overtake":
        other = next(item for item in scene.things if item.shape == thing.other)
        times = [step / 32 for step in range(32 * GROUPS)]
        ahead = [thing.along(t) > other.along(t) for t in times]
        return times[ahead.index(not ahead[0])]
    return {"appear": thing.born, "leave": thing.gone, "turn": thing.turn_at}[act]


def track_labels(scene: Scene) -> np.ndarray:
    """Labels uint8 [GROUPS * rows * columns, len(CLASSES)] of a clip's video tokens."""
    rows, columns = HEIGHT // CELL, WIDTH // CELL
    labels = np.zeros((GROUPS, rows, columns, len(CLASSES)), np.uint8)
    y = (np.arange(rows) + 0.5)[:, None] * CELL
    x = (np.arange(columns) + 0.5)[None, :] * CELL
    when = [event_seconds(scene, act) for act in scene.events]
    for group in range(GROUPS):
        first, second = SAMPLED[2 * group] / FPS, SAMPLED[2 * group + 1] / FPS
        labels[group, :, :, 2] = group
        for rank, (act, seconds) in enumerate(zip(scene.events, when, strict=True)):
            if seconds <= second:
                labels[group, :, :, 3 + rank] = 1 + EVENTS.index(act)
        for thing in scene.things:
            if not (thing.visible(first) or thing.visible(second)):
                continue
            (x0, y0), (x1, y1) = (center(scene, thing, t) for t in (first, second))
            reach = RADIUS[thing.size] + 6
            inside = (np.abs(x - (x0 + x1) / 2) < reach) & (np.abs(y - (y0 + y1) / 2) < reach)
            row, column = scene.place(thing, thing.born)
            labels[group][inside, 0] = 1 + ACTS.index(act_so_far(scene, thing, first, second))
            labels[group][inside, 1] = 1 + 3 * ROWS.index(row) + COLUMNS.index(column)
    return labels.reshape(-1, len(CLASSES))
