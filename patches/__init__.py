"""Changes of the host, one file each, applied through SGLang's hook registry.

``CPU_PLATFORM`` is installed in every process of a machine on the CPU platform; ``LVSPEC`` only
where the algorithm was asked for.
"""

from lvspec_sglang.patches import pin_memory, slot_writer, video_decoder
from lvspec_sglang.patches.base import Patch

CPU_PLATFORM: tuple[Patch, ...] = (
    *pin_memory.PATCHES,
    *slot_writer.PATCHES,
    *video_decoder.PATCHES,
)
LVSPEC: tuple[Patch, ...] = (*video_decoder.PATCHES,)
