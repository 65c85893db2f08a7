"""Video frames are not pinned on a machine without an accelerator.

The host pins decoded frames whenever it does not run as its own CPU engine. On the CPU platform
there is no driver to pin for, and ``Tensor.pin_memory`` raises.
"""

from lvspec_sglang.patches.base import Patch


def always_cpu() -> bool:
    """Answer for the two host functions that decide whether frames are pinned."""
    return True


_REASON = "pin_memory() raises without an accelerator driver"
_UNTIL = "the host asks current_platform.is_pin_memory_available() before it pins video frames"

PATCHES = tuple(
    Patch(target, (), always_cpu, "REPLACE", _REASON, _UNTIL)
    for target in (
        "sglang.srt.utils.video_decoder._is_cpu_engine",
        "sglang.srt.multimodal.processors.qwen_vl.is_cpu",
    )
)
