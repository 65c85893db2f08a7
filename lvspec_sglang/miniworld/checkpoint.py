"""Checkpoints on disk, in the form transformers and SGLang load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lvspec_sglang.miniworld.model import Size, make_config, padded_vocab, size_of
from lvspec_sglang.miniworld.net import MiniVL
from lvspec_sglang.miniworld.render import HEIGHT, WIDTH
from lvspec_sglang.miniworld.tokenizer import CHAT_TEMPLATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def save_checkpoint(
    directory: Path,
    weights: dict[str, Tensor],
    size: Size,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write a bf16 checkpoint that transformers and SGLang load like any Qwen2.5-VL.

    `weights` has the parameter names of MiniVL. Raises ValueError where they do not fit `size`.
    """
    from transformers import (
        GenerationConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    weights = {f"model.{name}": weight.cpu() for name, weight in weights.items()}
    model = Qwen2_5_VLForConditionalGeneration(make_config(size, tokenizer)).to(torch.bfloat16)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"weights do not fit size {size}: {missing=}, {unexpected=}")
    model.tie_weights()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)
    pixels = {"shortest_edge": 4 * 28 * 28, "longest_edge": WIDTH * HEIGHT + 64}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        video_processor=Qwen2VLVideoProcessor(size=pixels, cap_pixels_per_frame=False),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(directory)


def load_weights(directory: Path) -> dict[str, Tensor]:
    """A checkpoint's weights in float32, under MiniVL's names.

    Raises FileNotFoundError, with the remedy, where there is no checkpoint.
    """
    from safetensors.torch import load_file

    file = directory / "model.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"no {file}: train the pair with `lvspec miniworld train`")
    return {
        name if name.startswith("visual.") else f"language_{name}": weight.float()
        for name, weight in load_file(file).items()
    }


def load_model(directory: Path, device: str = "cpu") -> tuple[MiniVL, PreTrainedTokenizerFast]:
    """The model of a checkpoint, in float32, and its tokenizer."""
    from transformers import AutoTokenizer, Qwen2_5_VLConfig

    weights = load_weights(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    size = size_of(Qwen2_5_VLConfig.from_pretrained(directory))
    model = MiniVL(size, padded_vocab(tokenizer))
    model.load_state_dict(weights)
    return model.to(device).eval(), tokenizer
