"""Target attention on FlashInfer: the host's backend, whose verify forwards may share videos."""

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend, fast_prefill_plan
from sglang.srt.model_executor.runner_utils.capture_mode import get_capture_attention_variant

from lvspec_sglang.attention.chain import Call, Calls, Shape, bundle
from lvspec_sglang.attention.chain_backend import ChainBackend, contexts_of
from lvspec_sglang.attention.variants import SHARED

# Keys a piece, more than any context. A captured graph cannot begin to divide keys when it is
# replayed, so in deterministic mode it never does; nor does the host's captured decode.
UNDIVIDED = 1 << 30


class ChainFlashInferBackend(ChainBackend, FlashInferAttnBackend):
    """FlashInfer's backend whose TARGET_VERIFY is a causal chain, in captured graphs too."""

    def __init__(self, runner: Any, **options: Any) -> None:
        super().__init__(runner, **options)
        from sglang.srt.layers.attention.flashinfer_backend import _safe_merge_state

        heads = self.indices_updater_prefill
        shape = Shape(
            heads.num_qo_heads, heads.num_kv_heads, heads.head_dim, heads.q_data_type,
            heads.data_type, UNDIVIDED if self.enable_deterministic else None,
        )  # fmt: skip
        self.begin_chains(
            self.req_to_token_pool.req_to_token, shape, runner.decode_num_tokens_per_req(),
            _safe_merge_state, self._wrapper,
        )  # fmt: skip
        self.graph_calls: dict[int, Calls] = {}

    def kv_scales(self, layer: Any) -> Any:
        return self._kv_write_scales(layer)

    def init_cuda_graph_state(
        self, max_bs: int, max_num_tokens: int, kv_indices_buf: torch.Tensor | None = None
    ) -> None:
        device = self.workspace_buffer.device
        most = max_bs * self.chain.table.shape[1]
        # Whole context, video and rest: one list each, which the graphs of all sizes share.
        self.graph_slots = [torch.zeros(most, dtype=torch.int32, device=device) for _ in range(3)]

    def init_forward_metadata_out_graph(self, forward_batch: Any, in_capture: bool = False) -> None:
        if not forward_batch.forward_mode.is_target_verify():
            return super().init_forward_metadata_out_graph(forward_batch, in_capture)
        batch = forward_batch.batch_size
        shared = self.shares(contexts_of(forward_batch))
        if in_capture:
            shared = get_capture_attention_variant() == SHARED
            if batch not in self.graph_calls:
                self.graph_calls[batch] = graph_calls(
                    batch, self.width, self.graph_slots, self.workspace_buffer, self.shape,
                    self.prefill_backend,
                )  # fmt: skip
        self.plan_chain(self.graph_calls[batch], forward_batch, shared, self.width)

    def _wrapper(self) -> Any:
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper

        return BatchPrefillWithPagedKVCacheWrapper(
            self.workspace_buffer, "NHD", backend=self.prefill_backend
        )


def graph_calls(
    batch: int, width: int, slots: Sequence[torch.Tensor], workspace: torch.Tensor, shape: Shape,
    backend: str,
) -> Calls:  # fmt: skip
    """Calls that a captured graph of ``batch`` chains of ``width`` may hold.

    Args:
        slots: room for the slots of the whole, of the video and of the rest; int32.
    """
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper

    def zeros(count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.int32, device=workspace.device)

    def wrapper(room: torch.Tensor) -> Any:
        return BatchPrefillWithPagedKVCacheWrapper(
            workspace, "NHD", use_cuda_graph=True, backend=backend,
            qo_indptr_buf=zeros(batch + 1), paged_kv_indptr_buf=zeros(batch + 1),
            paged_kv_indices_buf=room, paged_kv_last_page_len_buf=zeros(batch),
        )  # fmt: skip

    uniform = (width, 0, width)  # a group of requests has its queries of the video together
    calls = (
        Call(partial(wrapper, room), shape, partial(plan_captured, queries=queries))
        for room, queries in zip(slots, uniform, strict=True)
    )
    return bundle(calls, batch * width, workspace.device)


def plan_captured(wrapper: Any, *arguments: Any, queries: int, **options: Any) -> None:
    """The host's plan of a captured wrapper, with the queries that each entry has.

    Untold, FlashInfer makes a graph's query tiles large enough for one entry that has nearly all.

    Args:
        queries: of every entry, or 0 where entries differ.
    """
    module = wrapper._cached_module
    wrapper._cached_module = SimpleNamespace(plan=lambda *given: module.plan(*given[:-1], queries))
    try:
        fast_prefill_plan(wrapper, *arguments, **options)
    finally:
        wrapper._cached_module = module


def register() -> None:
    """Serve the name ``flashinfer``, which the host compares, with this backend."""
    from sglang.srt.layers.attention.attention_registry import (
        ATTENTION_BACKENDS,
        register_attention_backend,
    )

    original = ATTENTION_BACKENDS["flashinfer"]

    def create(runner: Any) -> Any:
        if runner.use_mla_backend or runner.is_draft_worker:
            return original(runner)
        return ChainFlashInferBackend(runner, init_new_workspace=runner.init_new_workspace)

    register_attention_backend("flashinfer")(create)
