"""Run by test_engine.py: an engine whose verify forwards take the GPU's path, in torch arithmetic.

The planned attention runs with a torch executor of FlashInfer's plans, the mass hook with the
kernel's torch reference, overlap scheduling is on, and nothing in a round may wait for a device,
in drafting, verifying and relaxing. The module is imported again in the scheduler's process, so
what it replaces at import is replaced there. It prints the answers and notes in a file how often
verify forwards read one video together.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from sglang.srt.layers.attention.attention_registry import register_attention_backend
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from lvspec_sglang.attention import chain_plan, mass_hook, torch_native
from lvspec_sglang.attention.chain import Call, ChainAttention, Shape, bundle
from lvspec_sglang.drafting import Drafting
from lvspec_sglang.worker import LVSpecWorker
from tests.e2e.engine_program import start_engine
from tests.kernels.mass_program import reference
from tests.no_sync import NoSync
from tests.torch_paged import TorchPaged, merge

NOTES = "LVSPEC_TEST_NOTES"


class PlannedTorchBackend(TorchNativeAttnBackend):
    """What ChainFlashInferBackend does, on the CPU."""

    sharing = False

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        config, self.width = runner.model_config, runner.decode_num_tokens_per_req()
        heads = config.num_attention_heads, config.get_num_kv_heads(1)
        self.shape = Shape(*heads, config.head_dim, runner.dtype, runner.dtype)
        self.chain = ChainAttention(runner.req_to_token_pool.req_to_token, self.width, merge)

    def shares(self, contexts: Any) -> bool:
        return self.sharing and chain_plan.shares(contexts)

    def init_forward_metadata(self, forward_batch: Any) -> None:
        super().init_forward_metadata(forward_batch)
        if forward_batch.forward_mode.is_target_verify():
            contexts = forward_batch.spec_info.contexts
            lens = forward_batch.seq_lens.tolist()
            calls = (Call(TorchPaged(), self.shape, None) for _ in range(3))
            shared = self.shares(contexts)
            queries = bundle(calls, len(lens) * self.width, "cpu")
            self.chain.plan(queries, contexts, lens, shared)
            with Path(os.environ[NOTES]).open("a") as notes:
                notes.write("shared\n" if shared else "plain\n")

    def forward_extend(
        self, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, save_kv_cache: bool = True
    ) -> Any:
        if not forward_batch.forward_mode.is_target_verify():
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        where = KVWriteLoc.for_layer(forward_batch, layer, swa_loc=None)
        self.token_to_kv_pool.set_kv_buffer(layer, where, k, v)
        cache = self.token_to_kv_pool.get_kv_buffer(layer.layer_id)
        queries = q.view(-1, layer.tp_q_head_num, layer.head_dim)
        return self.chain.forward(queries, cache, layer).view(len(q), -1)


def mass_in_torch(
    q: Any, keys: Any, table: Any, rows: Any, seq_lens: Any, visual: Any, scale: float,
    mass: torch.Tensor, focus: torch.Tensor,
) -> None:  # fmt: skip
    assert abs(scale - q.shape[2] ** -0.5) < 1e-6
    found = reference(q, keys, table, rows, seq_lens, visual)
    mass.copy_(found[0])
    focus.copy_(found[1])


def without_waiting(method: Any) -> Any:
    """``method``, failing where it would make the host wait for a device."""

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with NoSync():
            return method(*args, **kwargs)

    return guarded


chain_plan.MIN_SHARED_TOKENS = 16
mass_hook.paged_visual_attention = mass_in_torch
Drafting.tokens = without_waiting(Drafting.tokens)  # type: ignore[method-assign]
LVSpecWorker._verify_round = without_waiting(LVSpecWorker._verify_round)  # type: ignore[method-assign]
torch_native.register = lambda: register_attention_backend("torch_native")(PlannedTorchBackend)


def main() -> None:
    target, draft, payloads = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    engine = start_engine(target, draft)

    def ask(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = engine.generate(
            [payload["text"] for payload in batch],
            [payload["sampling_params"] for payload in batch],
            video_data=[payload.get("video_data") for payload in batch],
        )
        return results

    # The second time the videos are in the radix cache, so that all share their slots.
    results = [*ask(payloads), *ask(payloads)]
    print(json.dumps({"results": results}), flush=True)
    engine.shutdown()


if __name__ == "__main__":
    main()
