"""Compile what FlashInfer would compile on the GPU host at first use: ``kernels.py FOLDER``.

Run with the packed packages on the path and nvcc at hand; no GPU is needed. Each kernel becomes
``FOLDER/NAME/NAME.so``, where FlashInfer looks under ``flashinfer/data/aot``.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("FLASHINFER_CUDA_ARCH_LIST", "9.0a")

import torch
from flashinfer.aot import copy_built_kernels
from flashinfer.jit import build_jit_specs, gen_batch_decode_module, gen_batch_prefill_module
from flashinfer.jit.cascade import gen_cascade_module
from flashinfer.jit.norm import gen_norm_module

HEADS = 64, 128  # dimensions of a head: the mini pair's, and Qwen2.5-VL's

if __name__ == "__main__":
    bf16 = torch.bfloat16
    specs = [gen_cascade_module(), gen_norm_module()]
    for head in HEADS:
        kinds = bf16, bf16, bf16, torch.int32, head, head, 0, False, False
        specs += gen_batch_prefill_module("fa2", *kinds, False), gen_batch_decode_module(*kinds)
    build_jit_specs(specs, verbose=False, skip_prebuilt=False)
    copy_built_kernels(specs, Path(sys.argv[1]))
