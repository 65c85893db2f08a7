"""Videos encoded by a Qwen vision tower are counted, the target's and the draft's alike.

Whether a video is paid for once cannot be seen from outside: the host keeps no figure of it.
"""

from typing import Any

from lvspec_sglang.counters import count
from lvspec_sglang.patches.base import Patch


def count_videos(result: Any, self: Any, items: Any) -> Any:
    """Count the videos of one call."""
    count("video_encodes", len(items))
    return result


PATCHES = tuple(
    Patch(
        f"sglang.srt.models.{module}.{family}ForConditionalGeneration.get_video_feature",
        ("self", "items"),
        count_videos,
        "AFTER",
        "nobody knows how often a video was encoded",
        "the host counts its encodes",
    )
    for module, family in (("qwen2_vl", "Qwen2VL"), ("qwen2_5_vl", "Qwen2_5_VL"))
)
