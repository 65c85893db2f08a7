"""What each video token shows: labels that teach the vision tower before any language."""

from __future__ import annotations

import numpy as np

from lvspec_sglang.miniworld.render import HEIGHT, RADIUS, WIDTH, center
from lvspec_sglang.miniworld.scene import COLORS, FPS, GROUPS, SAMPLED, SHAPES, SIZES, Scene

CELL = 28
CLASSES = {
    "color": len(COLORS) + 1,
    "color_after": len(COLORS) + 1,
    "shape": len(SHAPES) + 1,
    "size": len(SIZES) + 1,
    "motion": 6,
    "row": 4,
    "column": 4,
    "backdrop": 4,
}
"""Kinds of label with their number of classes; class 0 is "no object here" but for the backdrop."""


def cell_labels(scene: Scene) -> np.ndarray:
    """Labels uint8 [GROUPS * rows * columns, len(CLASSES)] of a clip's video tokens."""
    from lvspec_sglang.miniworld.scene import BACKDROPS

    rows, columns = HEIGHT // CELL, WIDTH // CELL
    labels = np.zeros((GROUPS, rows, columns, len(CLASSES)), np.uint8)
    labels[..., -1] = BACKDROPS.index(scene.backdrop)
    y = (np.arange(rows) + 0.5)[:, None] * CELL
    x = (np.arange(columns) + 0.5)[None, :] * CELL
    for group in range(GROUPS):
        times = SAMPLED[2 * group] / FPS, SAMPLED[2 * group + 1] / FPS
        for thing in scene.things:
            shown = [thing.visible(t) for t in times]
            if not any(shown):
                continue
            colors = [
                1 + COLORS.index(thing.color_at(t)) if seen else 0
                for t, seen in zip(times, shown, strict=True)
            ]
            (x0, y0), (x1, y1) = (center(scene, thing, t) for t in times)
            cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
            step = (x1 - x0) + (y1 - y0)
            motion = 1 if abs(step) < 1 else 2 + 2 * (scene.axis == "y") + (step > 0)
            reach = RADIUS[thing.size] + 6
            inside = (np.abs(x - cx) < reach) & (np.abs(y - cy) < reach)
            labels[group][inside, :-1] = (
                *colors,
                1 + SHAPES.index(thing.shape),
                1 + SIZES.index(thing.size),
                motion,
                1 + min(2, int(cy * 3 / HEIGHT)),
                1 + min(2, int(cx * 3 / WIDTH)),
            )
    return labels.reshape(-1, len(CLASSES))
