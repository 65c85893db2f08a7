"""Tiny checkpoints with random weights, made offline in a second, in real architectures.

They answer nothing sensible. They exist so that tests and benches can run the true path
(tokenizer, processor, vision tower, M-RoPE, KV pools) with pairs of every shape.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type in ('video', 'video_url') %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class TinyShape:
    """Sizes of a tiny language model; the vision tower is fixed and small."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vocab: int = 512


TARGET = TinyShape()
DRAFT = TinyShape(hidden=64, layers=2, heads=2, kv_heads=1, vocab=448)


def write_qwen2_5_vl(path: Path, shape: TinyShape, seed: int) -> Path:
    """Write a random Qwen2.5-VL checkpoint (fp32) with tokenizer and processor; return ``path``."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
    )

    ids = _write_processor(path, Qwen2_5_VLProcessor)
    vision = _VISION | {
        "hidden_size": 64,
        "intermediate_size": 128,
        "out_hidden_size": shape.hidden,
        "fullatt_block_indexes": [1],
        "window_size": 112,
    }
    config = Qwen2_5_VLConfig(vision_config=vision, **_rest(shape, ids))
    return _write_model(path, Qwen2_5_VLForConditionalGeneration, config, seed)


def write_qwen2_vl(path: Path, shape: TinyShape, seed: int) -> Path:
    """Write a random Qwen2-VL checkpoint (fp32) with tokenizer and processor; return ``path``."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    ids = _write_processor(path, Qwen2VLProcessor)
    vision = _VISION | {
        "embed_dim": 64,
        "mlp_ratio": 2,
        "hidden_size": shape.hidden,
        "in_chans": 3,  # as published checkpoints say, and the host reads
    }
    config = Qwen2VLConfig(vision_config=vision, **_rest(shape, ids))
    return _write_model(path, Qwen2VLForConditionalGeneration, config, seed)


_VISION: dict[str, Any] = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def _rest(shape: TinyShape, ids: dict[str, int]) -> dict[str, Any]:
    """A configuration but for its vision tower."""
    return {
        "text_config": {
            "vocab_size": shape.vocab,
            "hidden_size": shape.hidden,
            "intermediate_size": 2 * shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": _mrope_section(shape.hidden // shape.heads),
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
    }


def _write_model(path: Path, model_class: Any, config: Any, seed: int) -> Path:
    torch.manual_seed(seed)
    model = model_class(config)
    spread_weights(model)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.save_pretrained(path)
    return path


def write_perturbed(source: Path, path: Path, noise: float, seed: int) -> Path:
    """Copy the checkpoint ``source`` with relative Gaussian ``noise`` on every weight matrix.

    The copy agrees with its source on some tokens and not on others: a pair whose drafts are
    partly accepted.
    """
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(source, path, dirs_exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    for shard in sorted(path.glob("*.safetensors")):
        weights = load_file(shard)
        for name, weight in weights.items():
            if weight.ndim >= 2:
                scale = noise * weight.std()
                weights[name] = weight + scale * torch.randn(weight.shape, generator=generator)
        save_file(weights, shard, metadata={"format": "pt"})
    return path


def spread_weights(model: torch.nn.Module) -> None:
    """Rescale a fresh model so that its greedy answers vary instead of repeating one token."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, 1.5 / parameter.shape[-1] ** 0.5)


def _mrope_section(head_dim: int) -> list[int]:
    half = head_dim // 2
    side = (half - half // 4) // 2
    return [half - 2 * side, side, side]


def byte_tokenizer(special_tokens: tuple[str, ...], chat_template: str) -> Any:
    """A byte-level tokenizer without merges: one token a byte, then ``special_tokens``.

    It ends a turn with ``<|im_end|>`` and pads with ``<|endoftext|>``, which must be among them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(special_tokens),
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def _write_processor(path: Path, processor_class: Any) -> dict[str, int]:
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer = byte_tokenizer(SPECIAL_TOKENS, CHAT_TEMPLATE)
    tokenizer.image_token = "<|image_pad|>"
    tokenizer.video_token = "<|video_pad|>"
    path.mkdir(parents=True, exist_ok=True)
    processor_class(
        image_processor=Qwen2VLImageProcessor(min_pixels=4 * 784, max_pixels=64 * 784),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(min_pixels=4 * 784, max_pixels=64 * 784),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(path)
    return {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
