"""The LVSPEC worker: prefill, draft, verify, commit, as SGLang's scheduler drives it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sglang.srt.layers.logprob_processor import compute_spec_logprobs
from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
from sglang.srt.managers.utils import GenerationBatchResult
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.runtime_context import get_parallel, get_schedule, get_spec
from sglang.srt.server_args import ServerArgs
from sglang.srt.speculative.base_spec_worker import BaseSpecWorker
from sglang.srt.speculative.eagle_info import EagleVerifyInput
from sglang.srt.speculative.eagle_utils import eagle_prepare_for_verify
from sglang.srt.speculative.spec_utils import (
    GrammarTree,
    build_grammar_vocab_mask,
    record_stream_each,
    record_stream_for_v2_verify,
)

from lvspec_sglang.draft.batches import Segment
from lvspec_sglang.draft.check import DraftKVCheck
from lvspec_sglang.draft.model import DraftModel, Prompt
from lvspec_sglang.spec_input import LVSpecDraftInput
from lvspec_sglang.target_tokens import choose_target_tokens
from lvspec_sglang.verify.rule import Verdict, accept_strict

logger = logging.getLogger(__name__)


@dataclass
class Followed:
    """A request whose context the draft holds in its row."""

    req: Req
    prompt: Prompt
    cached_len: int  # tokens of the row that belong to the radix cache, when last looked at


class LVSpecWorker(BaseSpecWorker):
    """Drafts a chain with a small video LLM and commits what the target agrees with.

    A round never waits for the device: what is decided on it stays on it until the scheduler
    copies the result.
    """

    def __init__(
        self, server_args: ServerArgs, gpu_id: int, nccl_port: int, target_worker: Any
    ) -> None:
        super().__init__()
        self._target_worker = target_worker
        self.device = target_worker.device
        self.steps = get_spec().speculative_num_steps
        self.width = self.steps + 1
        self._draft_worker = DraftModel(
            server_args=server_args,
            gpu_id=gpu_id,
            nccl_port=nccl_port,
            is_draft_worker=True,
            # The draft runs at the target's positions.
            context_length=target_worker.model_runner.model_config.context_len,
        )
        self.vocab = min(
            target_worker.model_config.vocab_size, self._draft_worker.model_config.vocab_size
        )
        self.offsets = torch.arange(self.width, device=self.device)
        self.limit = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.followed: dict[int, Followed] = {}
        self.check: DraftKVCheck | None = None

    # ---- start-up ----

    def alloc_memory_pool(
        self,
        memory_pool_config: Any = None,
        req_to_token_pool: Any = None,
        token_to_kv_pool_allocator: Any = None,
    ) -> None:
        self.draft.alloc_memory_pool(
            memory_pool_config=memory_pool_config,
            token_to_kv_pool_allocator=token_to_kv_pool_allocator,
        )
        self.req_to_token_pool = req_to_token_pool
        self.token_to_kv_pool_allocator = token_to_kv_pool_allocator
        table = req_to_token_pool.req_to_token
        chunk = get_schedule().chunked_prefill_size
        self.draft.attach(table, chunk if chunk and chunk > 0 else get_schedule().max_prefill_tokens)
        self.limit = torch.zeros(table.shape[0], dtype=torch.int64, device=self.device)
        self.check = DraftKVCheck.from_env(self.draft)

    @property
    def draft(self) -> DraftModel:
        return self._draft_worker

    @property
    def spec_v2_attn_backends(self) -> tuple[Any, ...]:
        return (
            self.target_worker.model_runner.attn_backend,
            self.draft.model_runner.attn_backend,
        )

    def clear_cache_pool(self) -> None:
        self.draft.view.clear()
        self.draft.embedder.cache.clear()

    def note_request_finished(self, *, rid: str, natural_stop: bool) -> None:
        for row in [row for row, f in self.followed.items() if f.req.rid == rid]:
            del self.followed[row]

    # ---- the scheduler's one call ----

    def forward_batch_generation(
        self,
        batch: ScheduleBatch,
        on_publish: Callable[[torch.Tensor], None] | None = None,
        grammar_barrier: Callable[[], None] | None = None,
        pp_proxy_tensors: Any = None,
    ) -> GenerationBatchResult:
        """Run one prefill or one round; see SGLang's ``BaseSpecWorker`` for the contract."""
        if batch.forward_mode.is_extend():
            return self._prefill(batch, on_publish)
        self._catch_up(batch)
        drafted = self._draft_round(batch)
        return self._verify_round(batch, drafted, on_publish, grammar_barrier)

    # ---- prefill ----

    def _prefill(
        self, batch: ScheduleBatch, on_publish: Callable[[torch.Tensor], None] | None
    ) -> GenerationBatchResult:
        self.draft.view.invalidate(batch.out_cache_loc)
        whole = [r for r in batch.reqs if r.extend_end == len(r.full_untruncated_fill_ids)]
        segments = [segment for req in whole if (segment := self._begin(req)) is not None]

        result = self.target_worker.forward_batch_generation(
            batch, capture_hidden_mode=CaptureHiddenMode.NULL
        )
        result.new_seq_lens = batch.seq_lens
        if on_publish is not None:
            on_publish(result.new_seq_lens)
        self._draft_prefill(segments)
        result.next_draft_input = LVSpecDraftInput(result.next_token_ids.long())
        return result

    def _begin(self, req: Req) -> Segment | None:
        """Give a request whose prompt is complete its row; return what the draft must prefill."""
        row, ids = req.kv.req_pool_idx, req.get_fill_ids()
        mm = req.multimodal_inputs
        delta = getattr(mm, "mrope_position_delta", None)
        rope_delta = 0 if delta is None else int(delta.flatten()[0])
        speculated = self._can_speculate(req)
        kept = torch.arange(len(ids) if speculated else 0, device=self.device)
        self.limit[row] = self.steps if speculated else 0
        self.draft.view.begin(row, kept, len(ids), rope_delta)
        self.followed.pop(row, None)
        if not speculated:
            return None
        on_device = torch.tensor(ids, dtype=torch.int64).to(self.device)
        prompt = Prompt(on_device, kept, mm, rope_delta)
        self.followed[row] = Followed(req, prompt, req.kv.cache_protected_len)
        return self.draft.stale_segment(row, prompt)

    def _can_speculate(self, req: Req) -> bool:
        """Whether a round may commit several tokens of this request at once.

        Penalties and custom processors depend on every token before, one by one; precomputed
        embeddings are the target's own, which the draft cannot read.
        """
        params = req.sampling_params
        items = req.multimodal_inputs.mm_items if req.multimodal_inputs is not None else []
        return not (
            params.frequency_penalty
            or params.presence_penalty
            or params.repetition_penalty != 1.0
            or params.min_new_tokens
            or req.custom_logit_processor
            or any(item.precomputed_embeddings is not None for item in items)
        )

    def _draft_prefill(self, segments: list[Segment]) -> None:
        stale = [segment for segment in segments if segment.start < segment.stop]
        if stale:
            self.draft.prefill(stale, {row: f.prompt for row, f in self.followed.items()})

    # ---- a round ----

    def _catch_up(self, batch: ScheduleBatch) -> None:
        """Rebuild what the draft lost when the radix cache gave a request other slots."""
        segments = []
        for req in batch.reqs:
            followed = self.followed.get(req.kv.req_pool_idx)
            if followed is not None and followed.cached_len != req.kv.cache_protected_len:
                followed.cached_len = req.kv.cache_protected_len
                segments.append(self.draft.stale_segment(req.kv.req_pool_idx, followed.prompt))
        self._draft_prefill(segments)

    def _draft_round(self, batch: ScheduleBatch) -> torch.Tensor:
        """Draft ``[batch, K]`` tokens after the bonus tokens."""
        rows, seq_lens = batch.req_pool_indices, batch.seq_lens
        self.draft.view.invalidate(self.draft.view.slots(rows, seq_lens[:, None] + self.offsets))
        bonus = batch.spec_info.bonus_tokens.long()
        if not any(req.kv.req_pool_idx in self.followed for req in batch.reqs):
            return bonus[:, None].expand(-1, self.steps)
        if self.check is not None:
            self.check(batch, self.followed)
        return self.draft.chain(
            rows,
            seq_lens,
            bonus,
            self.steps,
            max(req.kv.kv_allocated_len for req in batch.reqs),
            lambda logits: logits[:, : self.vocab].argmax(dim=-1),
        )

    def _verify_round(
        self,
        batch: ScheduleBatch,
        drafted: torch.Tensor,
        on_publish: Callable[[torch.Tensor], None] | None,
        grammar_barrier: Callable[[], None] | None,
    ) -> GenerationBatchResult:
        rows, seq_lens = batch.req_pool_indices, batch.seq_lens
        chain = torch.cat([batch.spec_info.bonus_tokens.long()[:, None], drafted], dim=1)
        batch.spec_info = self._verify_input(rows, seq_lens, chain)
        stream = torch.get_device_module(self.device).current_stream()
        record_stream_for_v2_verify(batch, batch.spec_info, stream)
        forward_batch, can_run_graph = eagle_prepare_for_verify(
            batch.spec_info, self.req_to_token_pool, batch, self.target_worker
        )
        record_stream_each((batch.input_ids, batch.out_cache_loc), stream)
        tree = GrammarTree.from_linear_chain(chain) if batch.has_grammar else None
        output = self.target_worker.forward_batch_generation(
            batch=None, forward_batch=forward_batch, is_verify=True
        )
        logits_output = output.logits_output
        batch.sampling_info.grammar_mask = tree and build_grammar_vocab_mask(
            reqs=batch.reqs,
            tree=tree,
            sampling_info=batch.sampling_info,
            device=self.device,
            barrier=grammar_barrier,
        )
        target = choose_target_tokens(
            self.target_worker.model_runner.sampler,
            logits_output.next_token_logits,
            batch.sampling_info,
            batch.spec_info.positions,
            self.width,
        )
        verdict = self._agree(accept_strict(drafted, target, self.limit[rows]))
        new_seq_lens = seq_lens + verdict.accept_lens
        if on_publish is not None:
            on_publish(new_seq_lens)
        self.draft.view.settle(rows, drafted, verdict.accept_lens)
        if batch.return_logprob:
            compute_spec_logprobs(
                batch, logits_output, verdict.tokens.flatten(), chain_stride=self.width
            )
        bonus = verdict.tokens.gather(1, verdict.accept_lens.long()[:, None] - 1)[:, 0]
        return GenerationBatchResult(
            logits_output=logits_output,
            next_token_ids=verdict.tokens.flatten(),
            can_run_cuda_graph=can_run_graph,
            speculative_num_draft_tokens=self.width,
            accept_lens=verdict.accept_lens,
            new_seq_lens=new_seq_lens,
            next_draft_input=LVSpecDraftInput(bonus),
            extra_keep_alive_refs=[forward_batch],
        )

    def _verify_input(
        self, rows: torch.Tensor, seq_lens: torch.Tensor, chain: torch.Tensor
    ) -> EagleVerifyInput:
        view = self.draft.view
        positions = seq_lens[:, None] + self.offsets
        rope = (positions + view.rope_delta[rows][:, None]).flatten().repeat(3, 1)
        return EagleVerifyInput(
            draft_token=chain.flatten(),
            custom_mask=None,
            positions=positions.flatten(),
            retrieve_index=None,
            retrieve_next_token=None,
            retrieve_next_sibling=None,
            retrieve_cum_len=None,
            spec_steps=self.steps,
            topk=1,
            draft_token_num=self.width,
            capture_hidden_mode=CaptureHiddenMode.NULL,
            seq_lens_sum=None,
            seq_lens_cpu=None,
            prepared_out_cache_loc=view.slots(rows, positions).flatten(),
            prepared_mrope_positions=rope,
        )

    def _agree(self, verdict: Verdict) -> Verdict:
        """Make rank 0's verdict everybody's under tensor parallelism."""
        group = get_parallel().tp_group
        if group.world_size > 1:
            for tensor in verdict:
                group.broadcast(tensor, src=0)
        return verdict
