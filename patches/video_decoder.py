"""Videos are decoded by decord where torchcodec cannot load FFmpeg.

torchcodec imports without FFmpeg's shared libraries and fails at the first decode, so the host's
choice, made at import, never falls back to decord. And a file that decodes only in part fails in
the middle of sampling, with an error the server reports as its own fault (HTTP 500).
"""

import functools
from collections.abc import Callable
from typing import Any

from lvspec_sglang.counters import count
from lvspec_sglang.patches.base import Patch


@functools.cache
def torchcodec_works() -> bool:
    """Whether torchcodec can load FFmpeg's shared libraries in this process."""
    try:
        from torchcodec import _core

        _core.get_ffmpeg_library_versions()
    except Exception:
        return False
    return True


def open_decoder(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """Choose the decoder that works here, then construct the host's wrapper."""
    from sglang.srt.utils import video_decoder

    if video_decoder._BACKEND == "torchcodec" and not torchcodec_works():
        video_decoder._BACKEND = "decord"
    original(self, *args, **kwargs)


def sample_frames(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Decode frames; a payload that fails to decode is the client's error.

    Raises:
        ValueError: the video is truncated or damaged.
    """
    try:
        frames = original(self, *args, **kwargs)
        count("frames_decoded", len(frames))
        return frames
    except (MemoryError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"Could not decode video: {error}") from error


_UNTIL = "the host tries decord when torchcodec fails to load"

PATCHES = (
    Patch(
        "sglang.srt.utils.video_decoder.VideoDecoderWrapper.__init__",
        ("self", "source", "device", "num_decode_threads"),
        open_decoder,
        "AROUND",
        "every video request fails where FFmpeg's libraries are missing",
        _UNTIL,
    ),
    Patch(
        "sglang.srt.utils.video_decoder.VideoDecoderWrapper.get_frames_as_tensor",
        ("self", "indices"),
        sample_frames,
        "AROUND",
        "a truncated video is reported as HTTP 500 instead of 400",
        "the host maps decode errors while sampling to client errors",
    ),
)
