"""Compile the accept kernel for sm_90, which needs no GPU."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lvspec_sglang.verify.kernel import MAX_STEPS, accept_kernel

ALWAYS = {
    **dict.fromkeys(("drafted", "target", "limit", "draft_shift", "target_shift"), "*i64"),
    **dict.fromkeys(("threshold", "log_floor"), "*fp32"),
    **{"fly": "*i1", "accept_lens": "*i32", "tokens": "*i64", "kinds": "*i8"},
}
EVIDENCE = {
    **dict.fromkeys(("relevance", "log_ratio", "entropy"), "*fp32"),
    "guarded": "*i1",
}
RECENT = {"ring_scores": "*fp32", "ring_count": "*i64", "ring_rows": "*i64", "ratio": "*fp32"}


def compile_for(steps: int, pointers: dict[str, str]) -> str:
    """The PTX of the kernel whose other pointers are None."""
    sizes = {"STEPS": steps, "BLOCK": triton.next_power_of_2(steps)}
    sizes |= {"RING_SIZE": 64, "RING_BLOCK": 64}
    absent = dict.fromkeys(name for name in EVIDENCE | RECENT if name not in pointers)
    constants = sizes | absent
    signature = {name: pointers.get(name, "constexpr") for name in accept_kernel.arg_names}
    source = ASTSource(accept_kernel, signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


if __name__ == "__main__":
    for steps in (1, 10, MAX_STEPS):
        for pointers in (ALWAYS, ALWAYS | EVIDENCE, ALWAYS | EVIDENCE | RECENT):
            assert ".target sm_90" in compile_for(steps, pointers)
