"""Compile the Triton kernels for sm_90, which needs no GPU, and see that none spills registers."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lvspec_sglang.attention.mass_kernel import KEYS, join_pieces, launch_options, mass_pieces
from lvspec_sglang.relaxation import MAX_STOP_TOKENS
from lvspec_sglang.verify.compare_kernel import compare_kernel
from lvspec_sglang.verify.kernel import accept_kernel
from lvspec_sglang.verify.rule import MAX_STEPS, Policy

ALWAYS = {
    **dict.fromkeys(("drafted", "target", "tokens"), "*i64"),
    **dict.fromkeys((*Policy._fields, "threshold"), "*fp32"),
    **{"accept_lens": "*i32", "kinds": "*i8", "steps": "i32", "policy_stride": "i32"},
}
EVIDENCE = {
    **dict.fromkeys(("relevance", "log_ratio", "entropy"), "*fp32"),
    **{"guarded": "*i1", "ring_scores": "*fp32", "ring_count": "*i64", "ring_rows": "*i64"},
}

# Pointers and these are multiples of 16 where the kernels are launched, but for what lies inside a
# table.
ALIGNED = {"q_stride", "key_stride"}
INSIDE = (*Policy._fields[1:], "scores")

# width, heads a KV head, pieces: 32B, 7B and 3B alone and sixteen at once, K = 32 alone
MASSES = ((11, 5, 64), (11, 7, 8), (11, 8, 16), (33, 5, 64))

SPILLED = 16  # bytes a thread that do not matter


def ptx(kernel: Any, pointers: dict[str, str], constants: dict[str, Any], **options: int) -> str:
    """The PTX of ``kernel``, whose parameters in neither mapping are None."""
    constants = {
        **dict.fromkeys(name for name in kernel.arg_names if name not in pointers), **constants,
    }  # fmt: skip
    signature = {name: pointers.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if name in ALIGNED or (signature[name].startswith("*") and name not in INSIDE)
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", 90, 32)
    code: str = triton.compile(source, target=target, options=options).asm["ptx"]
    return code


def spilled(code: str) -> int:
    """Bytes that a thread of compiled ``code`` stores for want of registers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(code)
        command = [knobs.nvidia.ptxas.path, "-v", "-arch=sm_90a", str(path), "-o", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return sum(map(int, re.findall(r"(\d+) bytes spill stores", done.stdout + done.stderr)))


def accept(pointers: dict[str, str]) -> str:
    sizes = {"BLOCK": MAX_STEPS, "RING_SIZE": 64, "RING_BLOCK": 64}
    return ptx(accept_kernel, pointers, sizes)


def masses(width: int, group: int, pieces: int) -> tuple[str, str]:
    strides = dict.fromkeys(("q_stride", "key_stride", "table_stride", "visual_stride"), "i32")
    pointers = {
        **dict.fromkeys(("q", "keys"), "*bf16"), "table": "*i32",
        **dict.fromkeys(("rows", "seq_lens"), "*i64"), "visual": "*i1",
        "pieces": "*fp32", "scale": "fp32", **strides,
    }  # fmt: skip
    queries = triton.next_power_of_2(width * group)
    sizes = {"WIDTH": width, "GROUP": group, "QUERIES": queries, "PIECES": pieces}
    tile = sizes | {"DIM": 128, "DIMS": 128, "STEP": KEYS}
    first = ptx(mass_pieces, pointers, tile, **launch_options(queries))
    sizes |= {"HEADS": triton.next_power_of_2(group)}
    return first, ptx(join_pieces, dict.fromkeys(("pieces", "mass", "focus"), "*fp32"), sizes)


def compare() -> str:
    pointers = {
        **dict.fromkeys(("drafted", "target", "rows", "stops"), "*i64"), "logits": "*bf16",
        **dict.fromkeys(("scores", "relevance", "log_ratio"), "*fp32"),
        **dict.fromkeys(("never", "guarded"), "*i1"),
        **dict.fromkeys(("score_stride", "vocab", "last", "steps"), "i32"),
    }  # fmt: skip
    sizes = {"BLOCK": MAX_STEPS, "STOPS": MAX_STOP_TOKENS, "STOPS_BLOCK": MAX_STOP_TOKENS}
    return ptx(compare_kernel, pointers, sizes)


if __name__ == "__main__":
    made = [accept(ALWAYS), accept(ALWAYS | EVIDENCE), compare()]
    for case in MASSES:
        pieces, joined = masses(*case)
        assert "mma" in pieces, "the dot product runs on the tensor cores"
        made += [pieces, joined]
    for code in made:
        assert ".target sm_90" in code
        assert spilled(code) <= SPILLED, spilled(code)
