"""``engine_program.py`` on the CPU, its rounds on the path of a GPU.

What runs is the host's graph runner and its FlashInfer, FA3 and Triton backends, and all of this
package. In place of a device: recorded graphs for CUDA's, torch for the kernels of FlashInfer and
FlashAttention, Triton's interpreter (``TRITON_INTERPRET=1``). A round may not wait for a device.
The module is imported again in the scheduler's process, so that what it replaces is replaced there.
It notes in the file ``LVSPEC_TEST_NOTES`` which forwards were replayed and which were not.
"""

import importlib
import os
import sys
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import flashinfer
import torch
from sglang.srt.layers.attention import attention_registry
from sglang.srt.model_executor.cuda_graph_config import Backend, Phase, with_phase
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.model_executor.model_runner_components import cuda_graph_setup
from sglang.srt.model_executor.runner import decode_cuda_graph_runner as graph_runner
from sglang.srt.model_executor.runner.eager_runner import EagerRunner
from sglang.srt.platforms.interface import PlatformCapabilities
from triton.runtime.interpreter import GridExecutor

from lvspec_sglang import relaxation, worker
from lvspec_sglang.attention import verify_width
from lvspec_sglang.draft import batches
from lvspec_sglang.draft import model as draft_model
from lvspec_sglang.drafting import Drafting
from lvspec_sglang.platform.cpu import TorchCpuPlatform
from lvspec_sglang.verify.compare_kernel import compare_triton
from lvspec_sglang.verify.kernel import accept_triton
from tests.e2e.engine_program import main
from tests.e2e.engines import GRAPHS
from tests.no_sync import NoSync
from tests.recorded_graph import RecordedGraphBackend, kernel
from tests.torch_paged import TorchPaged, flash_attn_with_kvcache, merge

HOPPER = (9, 0)


def note(kind: str, runner: Any, size: int, how: str | None) -> None:
    role = "draft" if runner.is_draft_worker else "target"
    with Path(os.environ["LVSPEC_TEST_NOTES"]).open("a") as notes:
        print(kind, role, size, how, file=notes)


def give_kernels_to_the_hosts_backends() -> None:
    for wrapper in ("PrefillWithPaged", "PrefillWithRagged", "DecodeWithPaged"):
        setattr(flashinfer, f"Batch{wrapper}KVCacheWrapper", TorchPaged)
    flashinfer.cascade.merge_state = merge
    with mock.patch("sglang.srt.utils.is_flashinfer_available", lambda: True):
        importlib.import_module("sglang.srt.layers.attention.flashinfer_backend")

    library, kernels = ModuleType("sgl_kernel"), ModuleType("sgl_kernel.flash_attn")
    library.merge_state_v2 = merge
    kernels.flash_attn_with_kvcache = flash_attn_with_kvcache
    kernels.flash_attn_varlen_func = kernels.get_scheduler_metadata = None
    sys.modules |= {library.__name__: library, kernels.__name__: kernels}
    fa3 = importlib.import_module("sglang.srt.layers.attention.flashattention_backend")
    del sys.modules[library.__name__]  # the rest of the host is to find none
    fa3.flash_attn_with_kvcache = flash_attn_with_kvcache
    fa3.get_device_capability = attention_registry.get_device_capability = lambda: HOPPER

    GridExecutor.__call__ = kernel(GridExecutor.__call__)
    worker.accept_on = lambda device: accept_triton
    relaxation.compare_on = lambda device: compare_triton


def capture_graphs() -> None:
    defaults = TorchCpuPlatform.apply_server_args_defaults

    def with_graphs(self: TorchCpuPlatform, server_args: Any) -> None:
        defaults(self, server_args)
        sizes = {"bs": list(GRAPHS), "max_bs": GRAPHS[-1]}
        server_args.cuda_graph_config = with_phase(
            server_args.cuda_graph_config, Phase.DECODE, backend=Backend.FULL, **sizes
        )

    from lvspec_sglang.attention import flashinfer as chain_flashinfer

    TorchCpuPlatform.apply_server_args_defaults = with_graphs
    TorchCpuPlatform.capabilities = PlatformCapabilities(graph_capture=True)
    TorchCpuPlatform.get_graph_runner_cls = lambda self: graph_runner.DecodeCudaGraphRunner
    TorchCpuPlatform.get_full_graph_backend_cls = lambda self: RecordedGraphBackend
    TorchCpuPlatform.init_backend = lambda self: chain_flashinfer.register()
    TorchCpuPlatform.supports_speculative_draft_attention_backend = lambda *asked: True
    # What the host does on a CPU only where it compiles its graphs, and what it has streams for.
    compiled = SimpleNamespace(capture=SimpleNamespace(enable_torch_compile=True))
    cuda_graph_setup.get_flags = lambda: compiled
    ForwardMode.is_cpu_graph = ForwardMode.is_cuda_graph
    graph_runner.graph_capture = lambda stream: nullcontext(SimpleNamespace(stream=stream))
    torch.cpu.is_current_stream_capturing = lambda: False


def note_forwards() -> None:
    execute = EagerRunner.execute

    def executed(self: EagerRunner, forward_batch: Any, **options: Any) -> Any:
        note("eager", self.model_runner, forward_batch.batch_size, forward_batch.forward_mode.name)
        return execute(self, forward_batch, **options)

    def replayed(runner: Any, key: Any) -> None:
        note("graph", runner, key.size, key.attention_variant)

    def replanned(queries: int) -> None:
        with Path(os.environ["LVSPEC_TEST_NOTES"]).open("a") as notes:
            print("planned", queries, file=notes)

    EagerRunner.execute = executed
    TorchPaged.replanned = staticmethod(replanned)
    RecordedGraphBackend.replayed = staticmethod(replayed)


def keep_from_the_host_what_a_device_has() -> None:
    def decode_batch(*args: Any) -> Any:
        batch, longest = batches.decode_batch(*args), args[-1]
        batch.seq_lens_cpu = torch.full((batch.batch_size,), longest)
        batch.seq_lens_sum = longest * batch.batch_size
        return batch

    def without_waiting(method: Any) -> Any:
        @wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with NoSync():
                return method(*args, **kwargs)

        return guarded

    draft_model.decode_batch = decode_batch
    Drafting.tokens = without_waiting(Drafting.tokens)
    worker.LVSpecWorker._verify_round = without_waiting(worker.LVSpecWorker._verify_round)


give_kernels_to_the_hosts_backends()
capture_graphs()
note_forwards()
keep_from_the_host_what_a_device_has()
# Small enough for three padded chains to be too many.
verify_width.PADDED_TOKENS = 12

if __name__ == "__main__":
    main()
