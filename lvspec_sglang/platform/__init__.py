"""The CPU platform: SGLang without an accelerator, for trying, testing and CI.

`activate` is the ``sglang.srt.platforms`` entry point. It claims the machine only where nothing
else would: no accelerator, ``SGLANG_USE_CPU_ENGINE`` not 1, and no other platform plugin.
``LVSPEC_CPU_PLATFORM=0`` or ``=1`` decides instead of that rule.
"""

import os
from importlib.metadata import entry_points

PLATFORM_CLASS = "lvspec_sglang.platform.cpu.TorchCpuPlatform"
FORCE_ENV = "LVSPEC_CPU_PLATFORM"


def activate() -> str | None:
    """Return the platform class's path where the CPU platform applies, else None.

    Raises:
        ValueError: ``LVSPEC_CPU_PLATFORM`` is set to anything but 0 or 1.
    """
    return PLATFORM_CLASS if applies() else None


def applies() -> bool:
    """Whether this process should run SGLang on the CPU platform."""
    forced = os.environ.get(FORCE_ENV)
    if forced is not None:
        if forced not in ("0", "1"):
            raise ValueError(
                f"{FORCE_ENV}={forced!r}: use 1 to force the CPU platform, 0 to forbid it, "
                "or unset it to decide by the machine"
            )
        return forced == "1"
    return (
        os.environ.get("SGLANG_USE_CPU_ENGINE", "0") != "1"
        and not _other_platform_plugins()
        and not _has_accelerator()
    )


def _other_platform_plugins() -> bool:
    return any(
        not entry_point.value.startswith("lvspec_sglang.")
        for entry_point in entry_points(group="sglang.srt.platforms")
    )


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()
