"""Self-speculation: the target drafts for itself, over its own KV of the kept tokens.

There is no second model and no second KV. A draft step writes its token's KV where the verify
forward is about to write the same token's: so whatever a chain leaves behind, every committed slot
holds what the target itself computed with the whole context.
"""

import copy
import logging
from typing import Any

import torch
from sglang.srt.runtime_context import get_spec

from lvspec_sglang.draft.batches import Segment
from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.draft.model import DraftModel, Prompt

logger = logging.getLogger(__name__)


class TargetKVView(DraftKVView):
    """A view of the target's own KV, which is always there: nothing goes stale or lags."""

    def invalidate(self, slots: torch.Tensor) -> None:
        """The target's own write."""

    def mark_written(self, slots: torch.Tensor) -> None:
        """The verify forward writes them again."""

    def settle(self, rows: torch.Tensor, drafted: torch.Tensor, accept_lens: torch.Tensor) -> None:
        """The verify forward has written the last drafted token too."""


class SelfDraft(DraftModel):
    """The target's model and KV pool behind a request table and attention backend of its own."""

    owns_kv = False

    def __init__(self, target_worker: Any) -> None:
        """Draft with ``target_worker``; the host's own constructor would load a second model."""
        self.target_worker = target_worker
        self.model_config = target_worker.model_config

    @property
    def draft_runners(self) -> list[Any]:
        """None of its own: the weights are the target's."""
        return []

    @property
    def preloaded_weights_bytes(self) -> int:
        return 0

    @property
    def weight_load_time(self) -> float:
        return 0.0

    def alloc_memory_pool(self, *args: Any, **kwargs: Any) -> None:
        """Take the target's runner with an empty request table of the same shape."""
        runner = copy.copy(self.target_worker.model_runner)
        runner.req_to_token_pool = copy.copy(runner.req_to_token_pool)
        runner.req_to_token_pool.req_to_token = torch.zeros_like(
            runner.req_to_token_pool.req_to_token
        )
        runner.init_kv_index_translator()
        self._model_runner = runner
        self.model_runner_list: list[Any] = []

    def make_view(self, target_table: torch.Tensor) -> DraftKVView:
        return TargetKVView(target_table, self.model_runner.req_to_token_pool.req_to_token, 0)

    def stale_segment(self, row: int, prompt: Prompt) -> Segment:
        """Nothing: the target has prefilled its prompt."""
        return Segment(row, 0, 0)


def make_draft(server_args: Any, gpu_id: int, nccl_port: int, target_worker: Any) -> DraftModel:
    """The draft checkpoint's model, or the target itself where none was given."""
    if get_spec().speculative_draft_model_path is None:
        logger.info(
            "LVSPEC has no draft model: the target drafts for itself, over a part of each video. "
            "To draft with a smaller model give --speculative-draft-model-path."
        )
        return SelfDraft(target_worker)
    return DraftModel(
        server_args=server_args,
        gpu_id=gpu_id,
        nccl_port=nccl_port,
        is_draft_worker=True,
        # The draft runs at the target's positions.
        context_length=target_worker.model_runner.model_config.context_len,
    )
