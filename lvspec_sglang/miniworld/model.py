"""The two sizes of model, as transformers configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig

PATCH = 14
MERGE = 2
TOKENS_PER_SECOND = 13
"""SGLang hands Qwen2.5-VL's processor no frame rate, so that it assumes 24 and a temporal step of
2/24 s; 13 per second makes that a step of one position (and a fraction that rounding drops)."""


@dataclass(frozen=True)
class Size:
    """Widths and depths of one model; heads are 64 wide in the language model, 32 in the tower."""

    layers: int
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 512
    vision_layers: int = 2
    vision_hidden: int = 96
    vision_heads: int = 3
    vision_mlp: int = 256


MODEL_SIZES = {"target": Size(layers=14), "draft": Size(layers=2)}


def padded_vocab(tokenizer: PreTrainedTokenizerFast) -> int:
    """Rows of the embedding: the vocabulary rounded up to a multiple of 64."""
    return -(-len(tokenizer) // 64) * 64


def make_config(size: Size, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """A Qwen2.5-VL configuration of this size for this tokenizer."""
    from transformers import Qwen2_5_VLConfig

    ids: dict[str, Any] = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 8, 8]}
    text = {
        "vocab_size": padded_vocab(tokenizer),
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096,
        "rope_parameters": rope,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "intermediate_size": size.vision_mlp,
        "num_heads": size.vision_heads,
        "out_hidden_size": size.hidden,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "tokens_per_second": TOKENS_PER_SECOND,
        "window_size": 112,
        "fullatt_block_indexes": list(range(size.vision_layers)),
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)


def size_of(config: Qwen2_5_VLConfig) -> Size:
    """The size that `make_config` made a configuration of."""
    text, vision = config.text_config, config.vision_config
    return Size(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        mlp=text.intermediate_size,
        vision_layers=vision.depth,
        vision_hidden=vision.hidden_size,
        vision_heads=vision.num_heads,
        vision_mlp=vision.intermediate_size,
    )
