"""LLaVA-OneVision: one item a picture or video frame, plain positions.

The host merges tiles, pools frames and appends line breaks inside its model's forward. Rather than
repeat those rules, this family runs that forward and takes what it would hand to its language
model.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.model_executor.forward_batch_info import ForwardMode

from lvspec_sglang.draft.vision.family import Span
from lvspec_sglang.pruning import Grid


class LlavaFamily:
    """LLaVA in its original layout, as the host's ``LlavaBaseForCausalLM`` serves it."""

    # The line break after an unpadded picture has no pad token of its own.
    spill = 1

    def language_model(self, model: Any) -> Any:
        return model.language_model.model

    def spans(self, mm_inputs: Any) -> list[Span]:
        places = zip(mm_inputs.image_offsets, mm_inputs.image_pad_len, strict=True)
        return [Span(item, start, start + length, 0) for item, (start, length) in enumerate(places)]

    def grid(self, item: Any, tokens: int) -> Grid:
        side = math.isqrt(tokens)
        return Grid(1, side, side) if side * side == tokens else Grid(1, 1, tokens)

    def encode(self, model: Any, mm_inputs: Any, items: Sequence[int]) -> dict[int, torch.Tensor]:
        """Encode all items of the prompt in one pass of the tower, whichever are asked for.

        How the host treats a picture can depend on its neighbours.
        """
        rooms = [length + self.spill for length in mm_inputs.image_pad_len]
        starts = [sum(rooms[:item]) for item in range(len(rooms))]
        device = model.language_model.model.embed_tokens.weight.device
        tokens = torch.zeros(sum(rooms), dtype=torch.int64, device=device)
        prompt = SimpleNamespace(
            forward_mode=ForwardMode.EXTEND,
            batch_size=1,
            mm_inputs=[
                SimpleNamespace(
                    mm_items=mm_inputs.mm_items,
                    image_offsets=starts,
                    image_pad_len=mm_inputs.image_pad_len,
                )
            ],
            extend_start_loc=tokens.new_tensor([0]),
            extend_seq_lens=tokens.new_tensor([len(tokens)]),
            extend_prefix_lens_cpu=[0],
        )
        merged = type(model).forward(_WithoutLanguageModel(model), tokens, tokens, prompt)
        regions = merged.split(rooms)
        return {item: _written(region) for item, region in enumerate(regions)}


def _written(region: torch.Tensor) -> torch.Tensor:
    """The rows at the head of ``region`` that hold features, copied: ``[rows, hidden]``."""
    return region[: int((~region.isnan().any(dim=1)).sum())].clone()


class _WithoutLanguageModel:
    """A LLaVA model whose forward returns the embeddings its language model would get."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.language_model = _Recorder(model.language_model.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class _Recorder:
    """A language model that embeds every token as NaN and returns what it is handed."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.model = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        weight = self.decoder.embed_tokens.weight
        return weight.new_full((len(input_ids), weight.shape[1]), float("nan"))

    def __call__(
        self, input_ids: Any, positions: Any, forward_batch: Any, input_embeds: torch.Tensor
    ) -> torch.Tensor:
        return input_embeds
