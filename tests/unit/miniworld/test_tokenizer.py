"""The tokenizer: one token a word, exact round trips, Qwen's special tokens and chat form."""

import pytest
from transformers import PreTrainedTokenizerFast

from lvspec_sglang.miniworld.captions import caption
from lvspec_sglang.miniworld.habits import TARGET
from lvspec_sglang.miniworld.scene import make_scene
from lvspec_sglang.miniworld.tokenizer import SPECIALS


@pytest.mark.parametrize("text", ["A red circle.", "naïve 猫 42\n\ttabs  ", "<|im_start|>user\nhi"])
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_caption_costs_one_token_a_word(tokenizer: PreTrainedTokenizerFast) -> None:
    text = caption(make_scene(11), TARGET)
    marks = sum(text.count(mark) for mark in ".,")
    assert len(tokenizer.encode(text)) == len(text.split()) + marks


def test_special_tokens_are_single(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in SPECIALS:
        assert len(tokenizer.encode(token)) == 1
    assert tokenizer.eos_token == "<|im_end|>"


def test_chat_form(tokenizer: PreTrainedTokenizerFast) -> None:
    content = [{"type": "video"}, {"type": "text", "text": "Describe the video."}]
    messages = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Describe the video."
        "<|im_end|>\n<|im_start|>assistant\n"
    )
