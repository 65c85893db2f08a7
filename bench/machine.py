"""What this machine does at best, and how long a function takes on it."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch

NO_GPU = "needs a CUDA GPU"
MATRIX = 8192, 1024  # side of the product that stands for the peak, on a GPU and on a CPU


class Machine(NamedTuple):
    """What floors are measured against: a large copy and a large matrix product of this machine."""

    bytes_per_second: float
    operations_per_second: float

    def floor_us(self, data: int, work: int) -> float:
        """Microseconds in which ``data`` bytes are read and ``work`` operations done, at best."""
        return max(data / self.bytes_per_second, work / self.operations_per_second) * 1e6


def product_rate(device: str) -> float:
    """Operations a second of a large matrix product in the dtype measured."""
    dtype, side = (torch.bfloat16, MATRIX[0]) if device == "cuda" else (torch.float32, MATRIX[1])
    a = torch.randn(side, side, dtype=dtype, device=device)
    return 2 * side**3 / time_us(lambda: a @ a, device) * 1e6


def copy_bandwidth(device: str) -> float:
    """Bytes a second of a large copy, read and written: what a floor is measured against."""
    source = torch.empty((2 << 30) if device == "cuda" else (64 << 20), dtype=torch.uint8)
    source = source.to(device)
    target = torch.empty_like(source)
    return 2 * source.numel() / time_us(lambda: target.copy_(source), device) * 1e6


def recorded(function: Callable[[], Any]) -> Callable[[], None]:
    """``function`` as a CUDA graph's replay, so that its launches are not measured with it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def time_us(function: Callable[[], Any], device: str) -> float:
    """Median microseconds, caches cleared between runs on a GPU."""
    if device == "cuda":
        from triton.testing import do_bench

        return float(do_bench(function, return_mode="median")) * 1e3
    function()
    taken = []
    for _ in range(9):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return median(taken) * 1e6
