"""A tiny LLaVA-OneVision checkpoint: random weights in the layout SGLang loads.

SGLang serves the original LLaVA layout (``LlavaQwenForCausalLM``): the language model's fields at
the config's top level, and a vision tower that lives in a directory of its own.
"""

import json
from pathlib import Path

import torch

from lvspec_sglang.tiny import TinyShape, byte_tokenizer, spread_weights

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type in ('image', 'image_url') %}<image>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATCH_SIZE = 14
IMAGE_SIZE = 4 * PATCH_SIZE
VISION_HIDDEN = 32
TOWER = "siglip"


def write_llava_onevision(path: Path, shape: TinyShape, seed: int) -> Path:
    """Write a random LLaVA-OneVision checkpoint (fp32) with tokenizer and processor.

    A picture is 16 tokens and, if it is alone, up to four tiles more (anyres); a video frame is
    four. The checkpoint names its vision tower, ``path / "siglip"``, by absolute path, so a moved
    directory must be written anew.

    Returns:
        ``path``.

    Raises:
        ValueError: ``path`` holds ``clip``, by which SGLang would take the tower for a CLIP one.
    """
    tower = path.absolute() / TOWER
    if "clip" in str(tower):
        raise ValueError(
            f"{tower}: SGLang tells a CLIP tower from a SigLIP one by the path, so a LLaVA "
            "checkpoint must not lie under a path with 'clip' in it; choose another directory"
        )
    path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    _write_tower(tower)
    ids = _write_processor(path)
    _write_language_model(path, shape)
    _write_config(path, shape, ids, tower)
    return path


def _write_tower(path: Path) -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=VISION_HIDDEN,
            intermediate_size=2 * VISION_HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
        )
    )
    spread_weights(tower)
    tower.save_pretrained(path)


def _write_processor(path: Path) -> dict[str, int]:
    from transformers import LlavaProcessor, SiglipImageProcessor

    tokenizer = byte_tokenizer(SPECIAL_TOKENS, CHAT_TEMPLATE)
    LlavaProcessor(
        image_processor=SiglipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
    ).save_pretrained(path)
    return {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}


def _write_language_model(path: Path, shape: TinyShape) -> None:
    from safetensors.torch import save_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = Qwen2ForCausalLM(Qwen2Config(**_language_fields(shape)))
    projector = torch.nn.Sequential(
        torch.nn.Linear(VISION_HIDDEN, shape.hidden),
        torch.nn.GELU(),
        torch.nn.Linear(shape.hidden, shape.hidden),
    )
    spread_weights(model)
    spread_weights(projector)
    weights = {
        **model.state_dict(),
        **{f"model.mm_projector.{name}": w for name, w in projector.state_dict().items()},
        "model.image_newline": torch.randn(shape.hidden),
    }
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def _language_fields(shape: TinyShape) -> dict[str, object]:
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": 2 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    }


def _write_config(path: Path, shape: TinyShape, ids: dict[str, int], tower: Path) -> None:
    tiles = [[IMAGE_SIZE * rows, IMAGE_SIZE * columns] for rows in (1, 2) for columns in (1, 2)]
    config = {
        **_language_fields(shape),
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "torch_dtype": "float32",
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "image_token_index": ids["<image>"],
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": tiles,
        "mm_hidden_size": VISION_HIDDEN,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(tower),
        "projector_hidden_act": "gelu",
    }
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (path / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
