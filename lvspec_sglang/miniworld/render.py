"""Pixels of a scene: arrays for training, H.264 files for serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lvspec_sglang.miniworld.scene import FPS, FRAMES, Scene, Thing

WIDTH, HEIGHT = 196, 168
"""Frame size in pixels that the models see; files are written at twice this."""
FILE_SCALE = 2
RADIUS = {"small": 13.0, "large": 23.0}

PAINT = {
    "red": (225, 30, 35),
    "green": (30, 165, 60),
    "blue": (35, 75, 225),
    "yellow": (245, 215, 30),
    "purple": (135, 40, 175),
    "orange": (250, 130, 20),
}
BACKDROP_PAINT = {
    "white": (232, 232, 236),
    "gray": (128, 130, 132),
    "black": (34, 34, 38),
    "pink": (240, 190, 205),
}


def center(scene: Scene, thing: Thing, seconds: float) -> tuple[float, float]:
    """Centre (x, y) of a thing in pixels of the WIDTH x HEIGHT frame."""
    lane, along = (thing.lane + 0.5) / 3, thing.along(seconds)
    u, v = (along, lane) if scene.axis == "x" else (lane, along)
    return u * WIDTH, v * HEIGHT


def backdrop(scene: Scene, scale: int = 1) -> np.ndarray:
    """The empty scene, float32 [H, W, 3] in 0..255: lit from the left, tinted towards the floor.

    The light tells where in the picture a patch is, as walls and floors do in a real room.
    """
    paint = np.array(BACKDROP_PAINT[scene.backdrop], np.float32)
    x = (np.arange(WIDTH * scale, dtype=np.float32) + 0.5) / (WIDTH * scale)
    y = (np.arange(HEIGHT * scale, dtype=np.float32) + 0.5) / (HEIGHT * scale)
    light = (0.5 - x)[None, :, None] * np.array((40.0, 40.0, 10.0), np.float32)
    floor = (y - 0.5)[:, None, None] * np.array((-10.0, 30.0, -50.0), np.float32)
    return np.clip(paint + light + floor, 0, 255)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance in pixels to a shape's edge (negative inside)."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.72 * radius) - 0.28 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius
    if shape == "cross":
        ax, ay = np.abs(x), np.abs(y)
        bar = np.minimum(np.maximum(ax - radius, ay - 0.33 * radius),
                         np.maximum(ay - radius, ax - 0.33 * radius))  # fmt: skip
        return bar
    assert shape == "triangle", shape
    return np.maximum(y - 0.75 * radius, 0.8944 * np.abs(x) - 0.4472 * (y + radius))


def paint_frame(scene: Scene, seconds: float, base: np.ndarray, scale: int = 1) -> np.ndarray:
    """One frame, uint8 [H, W, 3], drawn with anti-aliased edges on a copy of `base`."""
    frame = base.copy()
    for thing in scene.things:
        if not thing.visible(seconds):
            continue
        cx, cy = (scale * value for value in center(scene, thing, seconds))
        radius = RADIUS[thing.size] * scale
        x0, x1 = max(0, int(cx - radius - 2)), min(frame.shape[1], int(cx + radius + 3))
        y0, y1 = max(0, int(cy - radius - 2)), min(frame.shape[0], int(cy + radius + 3))
        x = np.arange(x0, x1, dtype=np.float32)[None, :] + np.float32(0.5 - cx)
        y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - cy)
        cover = np.clip(0.5 - _distance(thing.shape, x, y, radius), 0, 1)[:, :, None]
        color = np.array(PAINT[thing.color_at(seconds)], np.float32)
        frame[y0:y1, x0:x1] += cover * (color - frame[y0:y1, x0:x1])
    return (frame + 0.5).astype(np.uint8)


def render(scene: Scene, frames: tuple[int, ...], scale: int = 1) -> np.ndarray:
    """The frames of these indices, uint8 [len(frames), HEIGHT * scale, WIDTH * scale, 3]."""
    base = backdrop(scene, scale)
    return np.stack([paint_frame(scene, index / FPS, base, scale) for index in frames])


def write_mp4(scene: Scene, path: Path) -> None:
    """Write the whole clip as H.264 (yuv420p, crf 16) at FILE_SCALE times the seen size."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "16", "threads": "1"})
        stream.width, stream.height = WIDTH * FILE_SCALE, HEIGHT * FILE_SCALE
        stream.pix_fmt = "yuv420p"
        for pixels in render(scene, tuple(range(FRAMES)), FILE_SCALE):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
