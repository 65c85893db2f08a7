"""``sgl.video`` of a frontend program reaches the server as a video.

The host's frontend encodes a video with OpenCV, which it does not install, glues the frames' PNG
files together and sends them as ``image_data`` behind an image placeholder; no processor of the
server reads that. Here the frames travel as a video file in ``video_data`` behind a video
placeholder. A frontend program loads no plugins: it applies these patches itself.
"""

import base64
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvspec_sglang.patches.base import Patch

PREFIX = "data:video/mp4;base64,"
SERVERS_RATE = 2  # frames a second a server samples by default: it takes each frame once


def add_video(self: Any, expr: Any) -> None:
    """Append the placeholder to the program's text and ``expr.num_frames`` frames to its media.

    Raises:
        ValueError: the chat template has no placeholder of a video.
    """
    template = self.chat_template
    token = template.image_token.replace("<|image_pad|>", "<|video_pad|>")
    if token == template.image_token:
        raise ValueError(
            f"sgl.video: the chat template {template.name!r} has no video placeholder; use "
            'RuntimeEndpoint(url, chat_template_name="qwen2-vl") with a Qwen2-VL or Qwen2.5-VL'
        )
    self.images_.append((expr.path, PREFIX + base64.b64encode(sampled_clip(expr)).decode()))
    self.text_ += token


def sampled_clip(expr: Any) -> bytes:
    """``expr.num_frames`` frames of the file ``expr.path``, evenly spaced, as an mp4.

    Raises:
        ValueError: no frame is asked for.
    """
    import decord
    import numpy as np

    from lvspec_sglang.clips import write_clip

    if expr.num_frames < 1:
        raise ValueError(f"sgl.video: num_frames {expr.num_frames}; at least 1")
    reader = decord.VideoReader(str(expr.path))
    places = np.linspace(0, len(reader) - 1, expr.num_frames).astype(int)
    frames = reader.get_batch(places.tolist()).asnumpy()
    height, width = (size // 2 * 2 for size in frames.shape[1:3])
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, np.ascontiguousarray(frames[:, :height, :width]), fps=SERVERS_RATE)
        return clip.read_bytes()


def send_media(original: Callable[..., None], self: Any, s: Any, data: dict[str, Any]) -> None:
    """Put a program's videos into ``video_data``, of each prompt where ``sgl.select`` sends many.

    A program's one image is the host's affair.

    Raises:
        ValueError: videos beside an image.
    """
    videos = [
        media for _, media in s.images_ if isinstance(media, str) and media.startswith(PREFIX)
    ]
    if not videos:
        original(self, s, data)
        return
    if len(videos) < len(s.images_):
        raise ValueError("a frontend program takes videos or an image, not both")
    prompts = data.get("text")
    data["video_data"] = [videos for _ in prompts] if isinstance(prompts, list) else videos


_REASON = "sgl.video fails: without OpenCV in the program, and with it in the server"
_UNTIL = "the host's frontend sends videos as video_data"

PATCHES = (
    Patch(
        "sglang.lang.interpreter.StreamExecutor._execute_video",
        ("self", "expr"),
        add_video,
        "REPLACE",
        _REASON,
        _UNTIL,
    ),
    Patch(
        "sglang.lang.backend.runtime_endpoint.RuntimeEndpoint._add_images",
        ("self", "s", "data"),
        send_media,
        "AROUND",
        _REASON,
        _UNTIL,
    ),
)
