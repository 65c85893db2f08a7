"""Changes of the host, one file each, applied through SGLang's hook registry.

``CPU_PLATFORM`` is applied in every process of a machine on the CPU platform; ``LVSPEC`` only in
the processes of a server that asked for the algorithm; ``ALWAYS`` adds a flag that nobody must use;
``FRONTEND`` is for programs in SGLang's frontend language, which apply it themselves.
"""

from lvspec_sglang.patches import (
    config_flag,
    context_width,
    draft_memory,
    encode_count,
    frontend_video,
    llava_dtype,
    llava_verify,
    meta_info,
    pin_memory,
    pool_end,
    request_policy,
    row_width,
    server_info,
    session_tail,
    slot_writer,
    verify_graph,
    video_decoder,
)
from lvspec_sglang.patches.base import Patch

CPU_PLATFORM: tuple[Patch, ...] = (
    *encode_count.PATCHES,
    *llava_dtype.PATCHES,
    *pin_memory.PATCHES,
    *slot_writer.PATCHES,
    *video_decoder.PATCHES,
)
LVSPEC: tuple[Patch, ...] = (
    *context_width.PATCHES,
    *draft_memory.PATCHES,
    *encode_count.PATCHES,
    *llava_verify.PATCHES,
    *meta_info.PATCHES,
    *pool_end.PATCHES,
    *request_policy.PATCHES,
    *row_width.PATCHES,
    *verify_graph.PATCHES,
    *server_info.PATCHES,
    *session_tail.PATCHES,
    *video_decoder.PATCHES,
)
ALWAYS: tuple[Patch, ...] = (*config_flag.PATCHES,)
FRONTEND: tuple[Patch, ...] = (*frontend_video.PATCHES,)
ALL: tuple[Patch, ...] = tuple(dict.fromkeys((*ALWAYS, *CPU_PLATFORM, *LVSPEC, *FRONTEND)))

_applied: set[str] = set()


def register(patches: tuple[Patch, ...]) -> None:
    """Register ``patches`` in this process, each once, for SGLang to apply with other plugins'.

    Raises:
        RuntimeError: a host function is missing or takes other parameters than expected.
    """
    fresh = [patch for patch in patches if patch.target not in _applied]
    mismatches = [text for patch in fresh if (text := patch.mismatch())]
    if mismatches:
        raise RuntimeError("lvspec_sglang does not fit this SGLang: " + "; ".join(mismatches))
    for patch in fresh:
        patch.install()
        _applied.add(patch.target)


def apply(patches: tuple[Patch, ...]) -> None:
    """Register ``patches`` and apply them now: all plugins have been loaded.

    Raises:
        RuntimeError: as ``register``.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry

    register(patches)
    HookRegistry.apply_hooks()


def applied() -> frozenset[str]:
    """Targets patched in this process."""
    return frozenset(_applied)
