"""A few frames of a video as pictures for a page."""

import base64
import io
from pathlib import Path
from typing import Any

FRAMES = 10
HEIGHT = 160


def read_frames(video: Path) -> list[dict[str, Any]]:
    """At most ``FRAMES`` frames, evenly spaced: ``seconds`` and ``picture``, a JPEG data URL.

    Raises:
        ValueError: the file cannot be decoded.
    """
    import decord
    import numpy as np
    from PIL import Image

    try:
        reader = decord.VideoReader(str(video))
        places = np.unique(np.linspace(0, len(reader) - 1, FRAMES).astype(int))
        pixels = reader.get_batch(places.tolist()).asnumpy()
        rate = reader.get_avg_fps()
    except Exception as error:  # decord has no error class that covers its decoders
        raise ValueError(f"could not decode the video {video}: {error}") from error
    frames = []
    for place, frame in zip(places.tolist(), pixels, strict=True):
        image = Image.fromarray(frame)
        image.thumbnail((image.width, HEIGHT))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        picture = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        frames.append({"seconds": place / rate, "picture": picture})
    return frames
