"""Time on the device, without waiting for it."""

import time
from typing import Any

import torch


class Clock:
    """Stamps of a device's progress: host time where the device is the host, else stream events."""

    def __init__(self, device: torch.device) -> None:
        self._module = None if device.type == "cpu" else torch.get_device_module(device)

    def now(self) -> Any:
        """A stamp of the moment the device gets here."""
        if self._module is None:
            return time.perf_counter()
        event = self._module.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, began: Any, ended: Any) -> float:
        """Between two stamps; the device must have passed both."""
        if self._module is None:
            return float(ended - began)
        return float(began.elapsed_time(ended)) / 1000
