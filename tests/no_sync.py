"""Fails on what would make the host wait for a GPU: run on the CPU, judged by who calls.

Every tensor counts as a device's, except in the functions of ``ON_HOST``, which handle what the
host knows: lengths that an attention backend plans by.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

WAITS = {
    "item", "tolist", "cpu", "numpy", "nonzero", "argwhere", "masked_select", "unique",
    "unique_consecutive", "equal", "allclose", "is_nonzero", "__bool__", "__int__", "__float__",
    "__index__", "__contains__",
}  # fmt: skip
COPIES = {"tensor", "as_tensor", "asarray", "from_numpy"}  # pageable memory to the device
INDEXES = {"__getitem__", "__setitem__"}
ON_HOST = {
    ("draft/batches.py", "decode_batch"),
    ("attention/chain.py", "plan"),
    ("attention/chain_backend.py", "plan_chain"),
    ("upload.py", "upload"),
    ("attention/chain_plan.py", "indptr"),
}
PACKAGE = "/lvspec_sglang/"


class NoSync(TorchFunctionMode):
    """Raises where code of this package would synchronise."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._waits(name, args, kwargs):
            where = caller()
            if where is not None and where[:2] not in ON_HOST:
                raise AssertionError(f"{name} in {where[0]}, {where[1]}, line {where[2]}")
        return func(*args, **kwargs)

    @staticmethod
    def _waits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name in INDEXES:
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            tensors = [p for p in places if isinstance(p, torch.Tensor)]
            if any(p.dtype == torch.bool for p in tensors):
                return True
            if name == "__getitem__" or isinstance(args[2], torch.Tensor):
                return False
            # A number is copied to the device, but for whole slices, which are filled with it.
            return bool(tensors) or all(isinstance(p, int) for p in places)
        if name == "where":
            return len(args) == 1
        if name == "repeat_interleave":
            return isinstance(args[-1], torch.Tensor) and kwargs.get("output_size") is None
        if name == "to":
            return "cpu" in (str(value) for value in (*args[1:], *kwargs.values()))
        return name in WAITS or name in COPIES


def caller() -> tuple[str, str, int] | None:
    """The nearest frame outside torch and this file, if it is this package's: file, function."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/torch/" not in path and path != __file__:
            if PACKAGE not in path:
                return None
            return path.rsplit(PACKAGE, 1)[1], frame.f_code.co_name, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return None
