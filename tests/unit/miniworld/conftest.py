"""What the tests of the mini world share: one tokenizer, and one tiny model."""

import pytest
from transformers import PreTrainedTokenizerFast

from lvspec_sglang.miniworld.model import Size
from lvspec_sglang.miniworld.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


@pytest.fixture(scope="session")
def tiny() -> Size:
    return Size(
        layers=2, hidden=128, heads=2, kv_heads=1, mlp=64, vision_layers=1, vision_hidden=32,
        vision_heads=1, vision_mlp=32,
    )  # fmt: skip
