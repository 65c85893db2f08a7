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

from lvspec_sglang.attention import chain_plan, mass_hook, torch_native
from lvspec_sglang.attention.chain import Shape
from lvspec_sglang.attention.chain_backend import ChainBackend
from lvspec_sglang.drafting import Drafting
from lvspec_sglang.worker import LVSpecWorker
from tests.e2e.engine_program import start_engine
from tests.kernels.mass_program import reference
from tests.no_sync import NoSync
from tests.torch_paged import TorchPaged, merge

NOTES = "LVSPEC_TEST_NOTES"


class PlannedTorchBackend(ChainBackend, TorchNativeAttnBackend):
    """The backend of a GPU with FlashInfer, its wrappers in torch."""

    padded_tokens = 25

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        config, width = runner.model_config, runner.decode_num_tokens_per_req()
        heads = config.num_attention_heads, config.get_num_kv_heads(1)
        shape = Shape(*heads, config.head_dim, runner.dtype, runner.dtype)
        table = runner.req_to_token_pool.req_to_token
        self.begin_chains(table, shape, width, merge, TorchPaged)

    def plan_chain(self, calls: Any, forward_batch: Any, shared: bool, width: int) -> None:
        super().plan_chain(calls, forward_batch, shared, width)
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(f"{'shared' if shared else 'plain'} {width}\n")


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

    # The second time the videos are in the radix cache, so that all share their slots. Last come
    # requests that nobody drafts for: one alone, whose rounds are padded, then too many for that.
    *payloads, undrafted = payloads
    results = [*ask(payloads), *ask(payloads), *ask([undrafted]), *ask([undrafted] * 3)]
    print(json.dumps({"results": results}), flush=True)
    engine.shutdown()


if __name__ == "__main__":
    main()
