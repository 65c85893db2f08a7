"""What SGLang asks an out-of-tree platform, answered for plain torch on a CPU.

SGLang resolves its platform while its own utilities are still being imported, so everything of the
host beyond the platform interface is imported where it is used.
"""

import logging
import os
from typing import Any

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.interface import KVPoolKind, PlatformEnum, SRTPlatform
from torch.profiler import ProfilerActivity

logger = logging.getLogger(__name__)

DEFAULT_KV_TOKENS = 16384
DEFAULT_RUNNING_REQUESTS = 16


class TorchCpuPlatform(CpuDeviceMixin, SRTPlatform):
    """SGLang's scheduler, radix cache, video path and server with torch arithmetic."""

    _enum = PlatformEnum.OOT

    def get_device(self, device_id: int = 0) -> str:
        return "cpu"

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_default_speculative_draft_attention_backend(self, algorithm: str) -> str:
        return "torch_native"

    def get_torch_profiler_activity_str(self) -> str:
        return ""  # beside CPU and GPU, which the host's profiler knows, there is none

    def get_torch_profiler_activity(self) -> ProfilerActivity:
        return ProfilerActivity.CPU

    def get_dispatch_key_name(self) -> str:
        return "native"

    def supports_speculative_algorithm(self, algorithm: str) -> bool:
        return algorithm == "LVSPEC"

    def supports_speculative_draft_attention_backend(self, algorithm: str, backend: str) -> bool:
        return backend == "torch_native"

    def is_pin_memory_available(self, device: object = None) -> bool:
        return False

    def get_kv_pool_cls(self, *, kind: KVPoolKind) -> type | None:
        from lvspec_sglang.platform.kv_pool import CpuKVPool

        return CpuKVPool if kind == "mha" else None

    def init_backend(self) -> None:
        from lvspec_sglang.attention import torch_native

        torch_native.register()

    def apply_server_args_defaults(self, server_args: Any) -> None:
        """Set what a server needs here and the user did not say."""
        from sglang.srt.model_executor.cuda_graph_config import Backend, Phase, with_phase

        logger.info(
            "No accelerator: the lvspec CPU platform runs SGLang with plain torch. "
            "It is for trying and testing, not for serving."
        )
        # Threads that spin at a barrier make small models many times slower on a busy machine.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # The scheduler, which starts later, would keep each video's freed pixels in its heap: 8 MB
        # of resident memory a video. Blocks of this size go back to the system.
        os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))
        # The host wants the cores of each rank named where ranks outnumber NUMA nodes.
        ranks = server_args.tp_size * server_args.dp_size
        if ranks > 1:
            cores = [str(rank % (os.cpu_count() or 1)) for rank in range(ranks)]
            os.environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", "|".join(cores))
        if server_args.attention_backend in (None, "intel_amx"):
            server_args.attention_backend = "torch_native"
        server_args.sampling_backend = "pytorch"
        server_args.sleep_on_idle = True
        if server_args.mm_attention_backend is None:
            server_args.mm_attention_backend = "sdpa"
        if server_args.max_total_tokens is None:
            server_args.max_total_tokens = DEFAULT_KV_TOKENS
        if server_args.max_running_requests is None:
            server_args.max_running_requests = DEFAULT_RUNNING_REQUESTS
        for phase in (Phase.DECODE, Phase.PREFILL):
            server_args.cuda_graph_config = with_phase(
                server_args.cuda_graph_config, phase, backend=Backend.DISABLED
            )
