"""A tensor is not pinned on a machine without an accelerator.

The host pins decoded video frames whenever it does not run as its own CPU engine. On the CPU
platform there is no driver to pin for, and ``Tensor.pin_memory`` raises. The functions that decide
it cannot be replaced: the hook registry rewrites every copy of a function it replaces, and
elsewhere the same answer makes the host look for its compiled CPU engine.
"""

from typing import Any

import torch

from lvspec_sglang.patches.base import Patch


def stay_pageable(self: torch.Tensor, device: Any = None) -> torch.Tensor:
    """Return the tensor itself."""
    return self


PATCHES = (
    Patch(
        "torch.Tensor.pin_memory",
        None,
        stay_pageable,
        "REPLACE",
        "pin_memory() raises without an accelerator driver",
        "the host asks current_platform.is_pin_memory_available() before it pins video frames",
    ),
)
