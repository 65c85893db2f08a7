"""Checkpoint folders at Qwen2.5-VL's true shapes, without weights: ``--load-format dummy``.

Tokenizer, chat template and processor are the mini world's, with its frame size limits lifted;
configurations are the published ones. Such a model answers nonsense in the right time.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lvspec_sglang.miniworld import paths

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
FRAME = 448  # pixels a side, 256 visual tokens for every two frames
TOKENS_A_PAIR = 256
FPS = 2  # frames a second that SGLang samples


class Shape(NamedTuple):
    """Sizes of a language model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def weight_bytes(self) -> int:
        """Bytes read for a token in bf16: every layer and the output head."""
        qkv = self.hidden * (self.heads + 2 * self.kv_heads) * self.head_dim
        layer = qkv + self.hidden * self.hidden + 3 * self.hidden * self.intermediate
        return 2 * (self.layers * layer + self.hidden * self.vocab)


SHAPES = {
    "3B": Shape(2048, 11008, 36, 16, 2, 151936, True),
    "7B": Shape(3584, 18944, 28, 28, 4, 152064, False),
    "32B": Shape(5120, 27648, 64, 40, 8, 152064, False),
}


def shape_of(checkpoint: Path) -> Shape:
    """The sizes in a checkpoint's configuration."""
    text = json.loads((checkpoint / "config.json").read_text())
    text = text.get("text_config", text)
    return Shape(
        text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"],
        text["num_attention_heads"], text["num_key_value_heads"], text["vocab_size"],
        bool(text.get("tie_word_embeddings")),
    )  # fmt: skip


def write_shape(name: str, folder: Path) -> Path:
    """Write the folder of ``SHAPES[name]`` under ``folder`` and return it.

    It carries no measurement of relevance: LVSPEC scores the layers it scores of any target that
    was not measured, and relaxes only requests that name a preset.
    """
    source, shape = paths().target, SHAPES[name]
    path = folder / f"Qwen2.5-VL-{name}-shape"
    path.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copy(source / file, path / file)
    config = json.loads((source / "config.json").read_text())
    config.pop("lvspec", None)
    config["tie_word_embeddings"] = shape.tied
    config["text_config"] |= {
        "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied, "max_position_embeddings": 128000,
        "layer_types": ["full_attention"] * shape.layers,
        "rope_parameters": {
            "mrope_section": [16, 24, 24], "rope_theta": 1e6, "rope_type": "default",
        },
    }  # fmt: skip
    config["vision_config"] |= {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3456 if name == "32B" else 3420,
        "num_heads": 16, "out_hidden_size": shape.hidden, "tokens_per_second": 2,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    _write(path / "config.json", config)
    processor = json.loads((source / "processor_config.json").read_text())
    for part in ("image_processor", "video_processor"):
        processor[part]["size"] = {"shortest_edge": 3136, "longest_edge": 1 << 30}
    _write(path / "processor_config.json", processor)
    return path


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
