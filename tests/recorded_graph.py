"""CUDA graphs without CUDA: what a forward did to tensors is recorded, and done again.

A replay runs none of the forward's Python. It repeats the operations on the tensors that were there
when they were recorded, so that a value read on the host, a length of then, or a tensor that is no
static buffer is as wrong as on a device. What a graph has made lies in memory that other graphs
share: after one of them it is NaN.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any, ClassVar

import torch
from sglang.srt.model_executor.runner_backend.base_cuda_graph_backend import BaseCudaGraphBackend
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

WAITS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.nonzero.default,
}
READS = {"cpu", "numpy", "tolist"}  # no operations where tensors are on the host already


class Step:
    """An operation of a graph, and the tensors its results have to be in."""

    def __init__(
        self, call: Callable[..., Any], args: Any, kwargs: dict[str, Any], result: Any
    ) -> None:
        self.call, self.args, self.kwargs = call, args, kwargs
        given = {storage(tensor) for tensor in tensors((args, kwargs))}
        # A view of what was given, and what was written in place, is there without a copy.
        self.made = [None if storage(new) in given else new for new in tensors(result)]

    def __call__(self) -> None:
        result = self.call(*self.args, **self.kwargs)
        for new, made in zip(tensors(result), self.made, strict=True):
            if made is not None:
                assert new.shape == made.shape, f"{self.call} depends on what is in its tensors"
                made.copy_(new)


class Graph:
    """The steps of a captured forward, and what it returned."""

    every: ClassVar[list["Graph"]] = []

    def __init__(self, forward: Callable[[], Any]) -> None:
        self.steps: list[Step] = []
        with _Reader(), _Recorder(self.steps):
            self.output = forward()
        self.every.append(self)

    def replay(self) -> Any:
        for graph in self.every:
            if graph is not self:
                graph.forget()
        for step in self.steps:
            step()
        return self.output

    def forget(self) -> None:
        for step in self.steps:
            for made in step.made:
                if made is not None and made.is_floating_point():
                    made.fill_(torch.nan)


class _Recorder(TorchDispatchMode):
    """Adds to ``steps`` what is done while it is on."""

    on: ClassVar["_Recorder | None"] = None

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps

    def __enter__(self) -> "_Recorder":
        _Recorder.on = self
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _Recorder.on = None
        super().__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        masked = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if func in WAITS or masked:
            raise RuntimeError(f"{func} makes the host wait, which a captured graph cannot")
        return self.launch(func, args, kwargs or {})

    def launch(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        self.steps.append(Step(func, args, kwargs, result))
        return result


class _Reader(TorchFunctionMode):
    """Refuses to read tensors on the host."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in READS and _Recorder.on is not None:
            raise RuntimeError(f"{func} makes the host wait, which a captured graph cannot")
        return func(*args, **(kwargs or {}))


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as one step of a graph, whatever it does with the tensors it is given."""

    @wraps(function)
    def launched(*args: Any, **kwargs: Any) -> Any:
        recorder = _Recorder.on
        if recorder is None:
            return function(*args, **kwargs)
        _Recorder.on = None
        try:
            with _disable_current_modes():
                return recorder.launch(function, args, kwargs)
        finally:
            _Recorder.on = recorder

    return launched


def tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class RecordedGraphBackend(BaseCudaGraphBackend):
    """In the place of the host's ``FullCudaGraphBackend``; tells ``replayed`` what it runs."""

    replayed: ClassVar[Callable[[Any, Any], None]]

    def __init__(self, cuda_graph_runner: Any, *, enable_memory_saver: bool = False) -> None:
        self.runner = cuda_graph_runner
        self.graphs: dict[Any, Graph] = {}

    def capture_session(self, stream: Any) -> Any:
        return nullcontext()

    def capture_one(
        self, shape_key: Any, forward_fn: Callable[[], Any], capture_inputs: Any = None,
        post_warmup_hook: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        forward_fn()
        if post_warmup_hook is not None:
            post_warmup_hook()
        self.graphs[shape_key] = Graph(forward_fn)

    def can_run(self, forward_batch: Any, shape_key: Any) -> bool:
        return shape_key in self.graphs

    def replay_session(self) -> Any:
        return nullcontext()

    def replay(self, shape_key: Any, static_forward_batch: Any, **kwargs: Any) -> Any:
        self.replayed(self.runner.model_runner, shape_key)
        return self.graphs[shape_key].replay()

    def cleanup(self) -> None:
        self.graphs.clear()
