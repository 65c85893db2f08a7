"""The LVSPEC worker: prefill, draft, verify, commit, as SGLang's scheduler drives it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from sglang.srt.layers.logprob_processor import compute_spec_logprobs
from sglang.srt.managers.schedule_batch import ScheduleBatch
from sglang.srt.managers.utils import GenerationBatchResult
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.runtime_context import get_schedule, get_spec
from sglang.srt.server_args import ServerArgs
from sglang.srt.speculative.base_spec_worker import BaseSpecWorker
from sglang.srt.speculative.spec_utils import GrammarTree, build_grammar_vocab_mask

from lvspec_sglang import counters, ranks
from lvspec_sglang.attention.chain_plan import readers
from lvspec_sglang.attention.verify_width import planning, verify_width
from lvspec_sglang.config_json import server_config
from lvspec_sglang.draft.kept import KeptTokens
from lvspec_sglang.draft.model import DraftModel
from lvspec_sglang.draft.self_draft import make_draft
from lvspec_sglang.drafting import Drafted, Drafting
from lvspec_sglang.following import Following
from lvspec_sglang.metrics import Committed
from lvspec_sglang.relaxation import Relaxation
from lvspec_sglang.scoring import connect, default_relax, make_relaxation
from lvspec_sglang.spec_input import LVSpecDraftInput
from lvspec_sglang.target_tokens import choose_target_tokens
from lvspec_sglang.verify import accept_on
from lvspec_sglang.verify.guards import guarded_tokens
from lvspec_sglang.verify.rule import Evidence, plain
from lvspec_sglang.verify_forward import prepare_verify, without_padding


class LVSpecWorker(BaseSpecWorker):
    """Drafts a chain with a small video LLM and commits what the target agrees with.

    A round never waits for the device: what is decided on it stays on it until the scheduler
    copies the result.
    """

    relaxation: Relaxation
    following: Following
    drafting: Drafting

    def __init__(
        self, server_args: ServerArgs, gpu_id: int, nccl_port: int, target_worker: Any
    ) -> None:
        super().__init__()
        self.config = server_config()
        self._target_worker = target_worker
        self.device = target_worker.device
        self.steps = get_spec().speculative_num_steps
        self.width = self.steps + 1
        self.accept = accept_on(torch.device(self.device).type)
        self._draft_worker = make_draft(server_args, gpu_id, nccl_port, target_worker)
        if not ranks.is_first():
            counters.silence()
        self.vocab = min(
            target_worker.model_config.vocab_size, self._draft_worker.model_config.vocab_size
        )

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
        chunk, most = get_schedule().chunked_prefill_size, get_schedule().max_prefill_tokens
        self.draft.attach(table, chunk if chunk and chunk > 0 else most)
        runner = self.target_worker.model_runner
        guarded = guarded_tokens(self.target_worker.tokenizer, self.vocab, self.config.guards)
        self.relaxation = make_relaxation(self.config, runner, table, guarded.to(self.device))
        self.kept = KeptTokens(self.config, runner, self.draft.embedder.family)
        self.following = Following(self.draft, self.kept, self.relaxation, self.steps)
        self.drafting = Drafting(
            self.following, self.config.draft_length, self.vocab, torch.device(self.device)
        )

    def init_attention_backends(self) -> None:
        super().init_attention_backends()
        runner, family = self.target_worker.model_runner, self.draft.embedder.family
        queries = self.width * self.relaxation.rows
        share_from = self.config.share_from
        self.report = connect(self.relaxation, runner, family, queries, share_from)
        self.drafting.verify_width = partial(verify_width, runner.attn_backend, width=self.width)
        self.following.default = default_relax(
            self.config,
            measured=len(self.relaxation.reference) > 0,
            words=self.target_worker.tokenizer is not None,
        )

    @property
    def draft(self) -> DraftModel:
        return self._draft_worker

    @property
    def spec_v2_attn_backends(self) -> tuple[Any, ...]:
        return self.target_worker.model_runner.attn_backend, self.draft.model_runner.attn_backend

    def weight_update_runners(self) -> list[tuple[str, Any]]:
        """New weights are the target's: no draft of another size could load them."""
        return []

    def clear_cache_pool(self) -> None:
        self.draft.view.clear()
        self.draft.embedder.cache.clear()
        self.kept.table.clear()

    def on_verify_complete_cpu(
        self, num_correct_drafts_per_req: list[int], batch_size: int = 0
    ) -> None:
        self.drafting.length.finished(num_correct_drafts_per_req)

    def figures(self) -> dict[str, Any]:
        """What ``/server_info`` tells of LVSPEC: the metrics, how drafts of each length fare, and
        the scores that a measured target's are compared with."""
        length, scores = self.drafting.length.report(), self.relaxation.reference.tolist()
        return {**counters.snapshot(), "draft_length": length, "reference_scores": scores}

    # ---- the scheduler's one call ----

    def forward_batch_generation(
        self,
        batch: ScheduleBatch,
        on_publish: Callable[[torch.Tensor], None] | None = None,
        grammar_barrier: Callable[[], None] | None = None,
        pp_proxy_tensors: Any = None,
    ) -> GenerationBatchResult:
        """Run one prefill or one round; see SGLang's ``BaseSpecWorker`` for the contract."""
        publish = on_publish or (lambda seq_lens: None)
        if batch.forward_mode.is_extend():
            return self._prefill(batch, publish)
        drafted = self.drafting.draft(batch)
        result = self._verify_round(batch, drafted, publish, grammar_barrier)
        self.drafting.started(batch, drafted)
        return result

    def _prefill(
        self, batch: ScheduleBatch, publish: Callable[[torch.Tensor], None]
    ) -> GenerationBatchResult:
        """The target's chunk; requests whose last one it was may then be drafted for."""
        self.draft.view.invalidate(batch.out_cache_loc)
        with self.following.watching(batch.reqs):
            result = self.target_worker.forward_batch_generation(
                batch, capture_hidden_mode=CaptureHiddenMode.NULL
            )
        result.new_seq_lens = batch.seq_lens
        publish(result.new_seq_lens)
        for req in batch.reqs:
            if req.extend_end == len(req.full_untruncated_fill_ids):
                self.following.begin(req)
        result.next_draft_input = LVSpecDraftInput(result.next_token_ids.long())
        first = result.next_draft_input.bonus_tokens
        asked = self.following.asked(batch.reqs)
        result.logits_output.auxiliary_device_output = Committed.of_prefill(asked, first)
        return result

    def _verify_round(
        self,
        batch: ScheduleBatch,
        drafted: Drafted,
        publish: Callable[[torch.Tensor], None],
        grammar_barrier: Callable[[], None] | None,
    ) -> GenerationBatchResult:
        """One target forward over the chain, the verdict, and what follows from it."""
        rows, width, count = batch.req_pool_indices, drafted.chain.shape[1], 1 + drafted.length
        chain = drafted.chain[:, :count]
        tokens = chain[:, 1:]
        asked = self.following.asked(batch.reqs)
        relaxed = drafted.length > 0 and any(asked.relaxed)
        self.relaxation.scorer.listening = relaxed
        contexts = self.following.contexts(batch.reqs)
        pool, target_worker = self.req_to_token_pool, self.target_worker
        forward_batch, can_run_graph = prepare_verify(
            batch, drafted.chain, self.draft.view, pool, target_worker, contexts
        )
        tree = GrammarTree.from_linear_chain(chain) if batch.has_grammar else None
        with planning(target_worker.model_runner.attn_backend, width):
            logits_output = target_worker.forward_batch_generation(
                batch=None, forward_batch=forward_batch, is_verify=True
            ).logits_output
        logits = without_padding(logits_output.next_token_logits, width, count)
        logits_output.next_token_logits = logits
        batch.sampling_info.grammar_mask = tree and build_grammar_vocab_mask(
            reqs=batch.reqs,
            tree=tree,
            sampling_info=batch.sampling_info,
            device=self.device,
            barrier=grammar_barrier,
        )
        positions = without_padding(batch.spec_info.positions, width, count)
        sampler = target_worker.model_runner.sampler
        target = choose_target_tokens(sampler, logits, batch.sampling_info, positions, count)
        evidence = self._evidence(batch, width, tokens, target, logits) if relaxed else None
        if drafted.length:
            decided = self.accept(tokens, target, self.relaxation.policy(rows), evidence)
        else:
            decided = plain(target)
        verdict = ranks.first_verdict(decided, check=self.drafting.check is not None)
        new_seq_lens = batch.seq_lens + verdict.accept_lens
        publish(new_seq_lens)
        if drafted.length:
            self.draft.view.settle(rows, tokens, verdict.accept_lens)
        if evidence is not None:
            self.relaxation.settle(evidence, verdict.accept_lens)
        if batch.return_logprob:
            compute_spec_logprobs(
                batch, logits_output, verdict.tokens.flatten(), chain_stride=count
            )
        logits_output.auxiliary_device_output = Committed.of_round(
            asked, tokens, target, verdict, evidence, readers(contexts), drafted.prefill_seconds
        )
        bonus = verdict.tokens.gather(1, verdict.accept_lens.long()[:, None] - 1)[:, 0]
        return GenerationBatchResult(
            logits_output=logits_output,
            next_token_ids=verdict.tokens.flatten(),
            can_run_cuda_graph=can_run_graph,
            speculative_num_draft_tokens=count,
            accept_lens=verdict.accept_lens,
            new_seq_lens=new_seq_lens,
            next_draft_input=LVSpecDraftInput(bonus),
            extra_keep_alive_refs=[forward_batch],
        )

    def _evidence(
        self, batch: ScheduleBatch, width: int, tokens: torch.Tensor, target: torch.Tensor,
        logits: torch.Tensor,
    ) -> Evidence:  # fmt: skip
        """What the verify forward under way, of ``width`` tokens a request, says of the drafted
        ``tokens``, ``[batch, K]``."""
        self.report(len(batch.reqs) * width)
        reach = max(req.kv.kv_allocated_len for req in batch.reqs)
        entropy = any(f.config.relax.rule == "fly" for f in self.following.of(batch.reqs))
        return ranks.mean_evidence(
            self.relaxation.evidence(
                batch.req_pool_indices, width, tokens, target, logits, reach, entropy
            )
        )
