"""The host's KV pool without the part that needs Triton."""

from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool


class CpuKVPool(MHATokenToKVPool):
    """A pool that does not warm up the Triton slot mover: a draft chain never moves KV."""

    def _init_kv_copy_and_warmup(self) -> None:
        self._kv_copy_config = None
