"""Compile side by side what SGLang compiles one after the other when its servers first start.

Run on the GPU host, beside other work: what servers of Qwen2.5-VL's shapes and of the mini pair
need is then in SGLang's cache. Without it they start too, later.
"""

from functools import partial
from typing import Any

import torch
from sglang.kernels.jit.utils.compile.parallel import parallel_compile
from sglang.kernels.ops.activation.activation import activation_module
from sglang.kernels.ops.attention.clamp_position import _jit_clamp_position_module
from sglang.kernels.ops.kvcache.kvcache import _jit_kvcache_module

from lvspec_sglang.bench.shapes import SHAPES, shape_of
from lvspec_sglang.miniworld import paths


def builds() -> list[partial[Any]]:
    """What compiles one kernel each, in bf16."""
    bf16 = torch.bfloat16
    shapes = [*SHAPES.values(), *map(shape_of, paths())]
    rows = {shape.kv_heads * shape.head_dim * bf16.itemsize for shape in shapes}
    return [
        partial(activation_module, bf16),
        partial(_jit_clamp_position_module, torch.int64),
        *(partial(_jit_kvcache_module, row, row, 0) for row in sorted(rows)),
    ]


if __name__ == "__main__":
    parallel_compile(builds())
