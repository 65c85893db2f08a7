"""Target attention on FlashInfer: the host's backend, whose verify forwards may share videos.

Nothing of the host's own verify path is used: it reads a mask for every pair of tokens, and its
graph buffers hold a whole context for each drafted token. A causal chain needs neither.
"""

from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend, fast_prefill_plan
from sglang.srt.mem_cache.memory_pool import KVWriteLoc
from sglang.srt.model_executor.runner_utils.capture_mode import get_capture_attention_variant

from lvspec_sglang.attention.chain import Call, Calls, ChainAttention, Shape, bundle
from lvspec_sglang.attention.chain_plan import Context, shares
from lvspec_sglang.attention.variants import SHARED


class ChainFlashInferBackend(FlashInferAttnBackend):
    """FlashInfer's backend whose TARGET_VERIFY is a causal chain, planned from host lengths.

    Attributes:
        sharing: whether requests on one video may read it together, which captured graphs need a
            variant for.
    """

    sharing = False

    def __init__(self, runner: Any, **options: Any) -> None:
        super().__init__(runner, **options)
        from sglang.srt.layers.attention.flashinfer_backend import _safe_merge_state

        heads = self.indices_updater_prefill
        self.shape = Shape(
            heads.num_qo_heads, heads.num_kv_heads, heads.head_dim, heads.q_data_type,
            heads.data_type,
        )  # fmt: skip
        self.width = runner.decode_num_tokens_per_req()
        self.chain = ChainAttention(
            self.req_to_token_pool.req_to_token, self.width, _safe_merge_state
        )
        self.eager_calls: list[Call] | None = None
        self.graph_calls: dict[int, Calls] = {}

    def shares(self, contexts: Sequence[Context]) -> bool:
        """Whether a batch of ``contexts`` reads videos together."""
        return self.sharing and shares(contexts)

    # ---- plans ----

    def init_forward_metadata(self, forward_batch: Any) -> None:
        if not forward_batch.forward_mode.is_target_verify():
            return super().init_forward_metadata(forward_batch)
        if self.eager_calls is None:
            self.eager_calls = [Call(self._wrapper(), self.shape, None) for _ in range(3)]
        queries = forward_batch.batch_size * self.width
        calls = bundle(self.eager_calls, queries, self.workspace_buffer.device)
        self._plan(calls, forward_batch, self.shares(_contexts(forward_batch)))

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
        shared = self.shares(_contexts(forward_batch))
        if in_capture:
            shared = get_capture_attention_variant() == SHARED
            if batch not in self.graph_calls:
                self.graph_calls[batch] = bundle(
                    [
                        Call(self._graph_wrapper(batch, slots), self.shape, fast_prefill_plan)
                        for slots in self.graph_slots
                    ],
                    batch * self.width,
                    self.workspace_buffer.device,
                )
        self._plan(self.graph_calls[batch], forward_batch, shared)

    def _plan(self, calls: Calls, forward_batch: Any, shared: bool) -> None:
        lens = forward_batch.seq_lens_cpu[: forward_batch.batch_size].tolist()
        self.chain.plan(calls, _contexts(forward_batch), lens, shared)

    def _wrapper(self) -> Any:
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper

        return BatchPrefillWithPagedKVCacheWrapper(
            self.workspace_buffer, "NHD", backend=self.prefill_backend
        )

    def _graph_wrapper(self, batch: int, slots: torch.Tensor) -> Any:
        from flashinfer import BatchPrefillWithPagedKVCacheWrapper

        def zeros(count: int) -> torch.Tensor:
            return torch.zeros(count, dtype=torch.int32, device=slots.device)

        return BatchPrefillWithPagedKVCacheWrapper(
            self.workspace_buffer, "NHD", use_cuda_graph=True, backend=self.prefill_backend,
            qo_indptr_buf=zeros(batch + 1), paged_kv_indptr_buf=zeros(batch + 1),
            paged_kv_indices_buf=slots, paged_kv_last_page_len_buf=zeros(batch),
        )  # fmt: skip

    # ---- attention ----

    def forward_extend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: Any, forward_batch: Any,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:  # fmt: skip
        if not forward_batch.forward_mode.is_target_verify():
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache)
        if k is not None and save_kv_cache:
            where = KVWriteLoc.for_layer(forward_batch, layer, swa_loc=None)
            scales = self._kv_write_scales(layer)
            self.token_to_kv_pool.set_kv_buffer(layer, where, k, v, *scales)
        queries = q.contiguous().view(-1, layer.tp_q_head_num, layer.head_dim)
        cache = self.token_to_kv_pool.get_kv_buffer(layer.layer_id)
        return self.chain.forward(queries, cache, layer).view(len(queries), -1)


def _contexts(forward_batch: Any) -> Sequence[Context]:
    """What the worker knows of the batch; nothing of the host's dummy batches."""
    return getattr(forward_batch.spec_info, "contexts", ())


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
