"""The draft model: a model runner of its own, its prefill on kept tokens, its K-step chain."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from sglang.srt.managers.tp_worker import TpModelWorker
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

from lvspec_sglang.counters import count
from lvspec_sglang.draft.batches import Segment, decode_batch, extend_batch, split_segments
from lvspec_sglang.draft.graph_sizes import chain_sizes
from lvspec_sglang.draft.kv_view import DraftKVView
from lvspec_sglang.draft.poison import PoisonedKVView, poisoned
from lvspec_sglang.draft.vision import PromptEmbedder, Span, rope_positions


class Prompt(NamedTuple):
    """What the draft must know of a request to (re)build its context in a row.

    Attributes:
        ids: prompt token ids with pad values on visual tokens, ``[prompt]`` int64, device.
        kept: prompt positions the draft keeps, ascending, ``[n]`` int64, device.
        mm_inputs: the host's multimodal inputs, or None.
        spans: of its visual tokens.
        rope: its M-RoPE positions, ``[3, prompt]``, or None where they are plain.
        rope_delta: M-RoPE position minus sequence position, after the prompt.
    """

    ids: torch.Tensor
    kept: torch.Tensor
    mm_inputs: Any
    spans: Sequence[Span]
    rope: torch.Tensor | None
    rope_delta: int


class DraftModel(TpModelWorker):
    """The host's worker of the draft checkpoint, with LVSPEC's two forwards.

    It shares the target's slot ids and owns a request table: ``alloc_memory_pool`` passes no
    table, so the host builds a private one of the same shape.

    Attributes:
        owns_kv: whether it has KV of its own to keep up with the target's.
    """

    owns_kv = True
    view: DraftKVView
    embedder: PromptEmbedder

    @property
    def draft_runners(self) -> list[Any]:
        """What the scheduler asks of a draft worker."""
        return [self.model_runner]

    def attach(self, target_table: torch.Tensor, max_prefill_tokens: int) -> None:
        """Bind to the target's request table, ``[rows, width]``, once both pools exist."""
        runner = self.model_runner
        # It only ever sees plain extends and one-token decodes, so that is what the host
        # shall size and capture for it.
        runner.spec_algorithm = SpeculativeAlgorithm.NONE
        # The chain's first step runs two rows a request: what the host sizes for its requests, and
        # for the rows of a table that nobody allocates from, must hold them.
        runner.max_running_requests *= 2
        runner.req_to_token_pool.size *= 2
        self.view = self.make_view(target_table)
        self.embedder = PromptEmbedder(runner.model)
        self.max_prefill_tokens = max_prefill_tokens

    def init_cuda_graphs(self, capture_decode_cuda_graph: bool = True) -> None:
        """Capture the steps of chains."""
        with chain_sizes():
            super().init_cuda_graphs(capture_decode_cuda_graph)

    def make_view(self, target_table: torch.Tensor) -> DraftKVView:
        """What of the draft's own KV it may read."""
        runner, pool = self.model_runner, self.model_runner.token_to_kv_pool
        tables = target_table, runner.req_to_token_pool.req_to_token
        slots = pool.get_key_buffer(pool.start_layer).shape[0]
        return PoisonedKVView(*tables, slots, runner) if poisoned() else DraftKVView(*tables, slots)

    def stale_segment(self, row: int, prompt: Prompt) -> Segment:
        """The kept tokens of ``row`` from the first one without draft KV to the prompt's end."""
        count = len(prompt.kept)
        self.view.gather(torch.tensor([row], device=prompt.ids.device), count)
        return Segment(row, self.view.first_stale(row, count), count)

    @torch.inference_mode()
    def prefill(self, segments: list[Segment], prompts: dict[int, Prompt]) -> None:
        """Write the draft's KV of ``segments``; ``prompts`` maps their rows to prompts."""
        for group in split_segments(segments, self.max_prefill_tokens):
            parts = [self._prompt_part(segment, prompts[segment.row]) for segment in group]
            slots, positions, rope, embeds = (
                torch.cat(tensors, dim=-2 if axis == 3 else -1)
                for axis, tensors in enumerate(zip(*parts, strict=True))
            )
            self.forward_embeds(
                extend_batch(self.model_runner, group, slots, positions, rope), embeds
            )
            self.view.mark_written(slots)
            count("draft_prefill_tokens", len(slots))

    def _prompt_part(self, segment: Segment, prompt: Prompt) -> tuple[torch.Tensor, ...]:
        kept = prompt.kept[segment.start : segment.stop]
        return (
            self.view.draft_table[segment.row, segment.start : segment.stop].long(),
            kept,
            rope_positions(kept, prompt.rope, prompt.rope_delta),
            self.embedder.embed(prompt.ids[kept], kept, prompt.mm_inputs, prompt.spans),
        )

    def forward_embeds(self, batch: Any, embeds: torch.Tensor) -> None:
        """Run the inner decoder on input embeddings, ``[tokens, hidden]``, for its KV alone."""
        backend = self.model_runner.attn_backend
        with forward_context(ForwardContext(attn_backend=backend), forward_batch=batch):
            backend.init_forward_metadata(batch)
            rope = batch.positions
            if self.model_runner.model_config.model_is_mrope:
                rope = batch.mrope_positions
            self.embedder.decoder(batch.input_ids, rope, batch, input_embeds=embeds)

    @torch.inference_mode()
    def chain(
        self,
        rows: torch.Tensor,
        seq_lens: torch.Tensor,
        bonus: torch.Tensor,
        steps: int,
        max_len: int,
        choose: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Draft ``steps`` tokens after the bonus token of each request, ``[batch, steps]`` int64.

        The first step also feeds, in a second row, the last committed token of a request whose
        last round was accepted whole: it has no draft KV yet. Where there is none to catch up,
        that row repeats the bonus token, so that shapes never depend on the data.

        Args:
            rows, seq_lens: request row and committed length (without the bonus), ``[batch]``.
            bonus: ``[batch]`` int64.
            max_len: host-side upper bound of the target's row lengths after this round.
            choose: logits ``[batch, vocab]`` to tokens ``[batch]`` int64.
        """
        view, batch = self.view, len(rows)
        view.gather(rows, min(max_len, view.width))
        lagging = view.lagging[rows]
        back = seq_lens - lagging.long()
        behind = torch.where(lagging, view.last_token[rows], bonus)
        ahead = seq_lens + torch.arange(steps, device=rows.device)[:, None]  # [steps, batch]
        positions = torch.cat([back[None], ahead])
        slots = view.slots(rows, positions.T).T.contiguous()
        lens = view.lengths(rows, positions) + 1
        rope_delta = view.rope_delta[rows]

        def step(fed_rows: torch.Tensor, tokens: torch.Tensor, at: slice) -> torch.Tensor:
            forward = decode_batch(
                self.model_runner,
                fed_rows,
                tokens.clamp(max=self.model_config.vocab_size - 1),
                slots[at].flatten(),
                lens[at].flatten(),
                positions[at].flatten(),
                rope_delta.repeat(len(fed_rows) // batch),
                max_len,
            )
            logits = self.model_runner.forward(forward).logits_output.next_token_logits
            view.check_logits(logits)
            return logits

        logits = step(torch.cat([rows, rows]), torch.cat([behind, bonus]), slice(2))
        drafted = [choose(logits[batch:])]
        for place in range(2, steps + 1):
            drafted.append(choose(step(rows, drafted[-1], slice(place, place + 1))))
        view.mark_written(slots)
        return torch.stack(drafted, dim=1)
