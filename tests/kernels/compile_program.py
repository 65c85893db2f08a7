"""Compile the Triton kernels for sm_90, which needs no GPU."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lvspec_sglang.attention.mass_kernel import KEYS, join_pieces, mass_pieces
from lvspec_sglang.verify.kernel import accept_kernel
from lvspec_sglang.verify.rule import MAX_STEPS

ALWAYS = {
    **dict.fromkeys(("drafted", "target", "limit", "draft_shift", "target_shift"), "*i64"),
    **dict.fromkeys(("ratio", "log_floor", "threshold", "fly_entropy_threshold"), "*fp32"),
    "fly_window_size": "*i64",
    **{"fly": "*i1", "accept_lens": "*i32", "tokens": "*i64", "kinds": "*i8"},
}
EVIDENCE = {
    **dict.fromkeys(("relevance", "log_ratio", "entropy"), "*fp32"),
    **{"guarded": "*i1", "ring_scores": "*fp32", "ring_count": "*i64", "ring_rows": "*i64"},
}

# width, heads a KV head, KV heads, pieces: 32B, 7B and 3B alone and sixteen at once, K = 32 alone
MASSES = ((11, 5, 8, 64), (11, 7, 4, 8), (11, 8, 2, 16), (33, 5, 8, 64))


def ptx(kernel: Any, pointers: dict[str, str], constants: dict[str, Any]) -> str:
    """The PTX of ``kernel``, whose parameters in neither mapping are None."""
    constants = {
        **dict.fromkeys(name for name in kernel.arg_names if name not in pointers), **constants,
    }  # fmt: skip
    signature = {name: pointers.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


def accept(steps: int, pointers: dict[str, str]) -> str:
    sizes = {"STEPS": steps, "BLOCK": triton.next_power_of_2(steps)}
    return ptx(accept_kernel, pointers, sizes | {"RING_SIZE": 64, "RING_BLOCK": 64})


def masses(width: int, group: int, kv_heads: int, pieces: int) -> tuple[str, str]:
    strides = dict.fromkeys(("q_stride", "key_stride", "table_stride", "visual_stride"), "i32")
    pointers = {
        **dict.fromkeys(("q", "keys"), "*bf16"), "table": "*i32",
        **dict.fromkeys(("rows", "seq_lens"), "*i64"), "visual": "*i1",
        "pieces": "*fp32", "scale": "fp32", **strides,
    }  # fmt: skip
    queries = triton.next_power_of_2(width * group)
    sizes = {"WIDTH": width, "GROUP": group, "QUERIES": queries, "PIECES": pieces}
    first = ptx(mass_pieces, pointers, sizes | {"DIM": 128, "DIMS": 128, "STEP": KEYS})
    heads = {"KV_HEADS": kv_heads, "HEADS": triton.next_power_of_2(kv_heads * group)}
    blocks = {"PIECES_BLOCK": triton.next_power_of_2(pieces)}
    return first, ptx(
        join_pieces, dict.fromkeys(("pieces", "mass", "focus"), "*fp32"), sizes | heads | blocks
    )


if __name__ == "__main__":
    for steps in (1, 10, MAX_STEPS):
        for pointers in (ALWAYS, ALWAYS | EVIDENCE):
            assert ".target sm_90" in accept(steps, pointers)
    for case in MASSES:
        assert all(".target sm_90" in code for code in masses(*case))
        assert "mma" in masses(*case)[0], "the dot product runs on the tensor cores"
