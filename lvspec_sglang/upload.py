"""Small host data onto the device, without making the host wait."""

from collections.abc import Sequence

import torch


def upload(values: torch.Tensor | Sequence[int], device: torch.device | str) -> torch.Tensor:
    """``values`` as a tensor on ``device``: from pinned memory, in the order of its stream."""
    host = values if isinstance(values, torch.Tensor) else torch.tensor(values)
    if torch.device(device).type == "cpu":
        return host
    return host.pin_memory().to(device, non_blocking=True)
