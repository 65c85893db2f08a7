"""Writing small video clips, for the demo and the tests."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_clip(
    path: Path, frames: Iterable[np.ndarray], fps: int = 8, codec: str = "libx264"
) -> Path:
    """Write RGB ``frames``, each ``[height, width, 3]`` uint8 of even size, as a video file."""
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=fps)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        if stream is None:
            raise ValueError("a clip needs at least one frame")
        for packet in stream.encode():
            container.mux(packet)
    return path


def moving_square(count: int, seed: int, height: int = 112, width: int = 112) -> list[np.ndarray]:
    """``count`` frames of a square crossing a plain background; colours and speed from ``seed``."""
    random = np.random.default_rng(seed)
    background, colour = random.integers(0, 256, (2, 3), dtype=np.uint8)
    side, speed = min(height, width) // 4, int(random.integers(2, 7))
    top = int(random.integers(0, height - side))
    frames = []
    for index in range(count):
        frame = np.broadcast_to(background, (height, width, 3)).copy()
        left = index * speed % (width - side)
        frame[top : top + side, left : left + side] = colour
        frames.append(frame)
    return frames
