"""The door: what SGLang calls when it loads its plugins, in every process it starts."""

from typing import Any

from lvspec_sglang import platform


def register() -> None:
    """Make LVSPEC known to SGLang and patch what the CPU platform needs."""
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
    from lvspec_sglang.algorithm import LVSpecAlgorithm
    from lvspec_sglang import patches

    SpeculativeAlgorithm.register("LVSPEC", supports_overlap=True, spec_class=LVSpecAlgorithm)(_worker)
    if platform.applies():
        for p in patches.CPU_PLATFORM:
            m = p.mismatch()
            if m: print(m)
            p.install()


def _worker(server_args: Any) -> type:
    from lvspec_sglang.worker import LVSpecWorker

    return LVSpecWorker
