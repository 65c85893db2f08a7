"""Checkpoints: transformers loads them, and computes what the trainer's own forward computes."""

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from lvspec_sglang.miniworld.agreement import measure
from lvspec_sglang.miniworld.checkpoint import load_model, save_checkpoint
from lvspec_sglang.miniworld.data import Prompter, Sampler, patchify
from lvspec_sglang.miniworld.decode import generate, video_tokens
from lvspec_sglang.miniworld.model import Size, padded_vocab
from lvspec_sglang.miniworld.net import MiniVL, segment_bias


@pytest.fixture(scope="module")
def folder(
    tiny: Size, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    torch.manual_seed(0)
    model = MiniVL(tiny, padded_vocab(tokenizer))
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)
    path = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(path, model.state_dict(), tiny, tokenizer)
    return path


def test_processor_and_model_agree_with_training(folder: Path) -> None:
    model, tokenizer = load_model(folder)
    reference = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    sampler = Sampler(tokenizer, ("target",), 4, 1)
    batch = sampler[0]
    row = int(batch.segments.amax(1).argmin())
    assert batch.segments[row].max() == 1, "no chat with all turns together in this batch"
    prefix = sampler.prompter.prefix
    length = prefix + int(batch.segments[row].sum())
    ids = batch.ids[row : row + 1, :length]
    inputs = processor(
        text=["<|vision_start|><|video_pad|><|vision_end|>"],
        videos=[batch.pixels[row].permute(0, 3, 1, 2)],
        return_tensors="pt",
    )
    patches = patchify(batch.pixels[row : row + 1])
    assert torch.equal(inputs["pixel_values_videos"], patches[0])
    positions, _ = reference.model.get_rope_index(
        ids,
        mm_token_type_ids=2 * (ids == reference.config.video_token_id).int(),
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs["second_per_grid_ts"],
    )
    assert torch.equal(positions[:, 0], batch.positions[:, row, :length])
    with torch.no_grad():
        expected = reference(
            input_ids=ids,
            pixel_values_videos=inputs["pixel_values_videos"],
            video_grid_thw=inputs["video_grid_thw"],
            position_ids=positions,
            attention_mask=torch.ones_like(ids),
        ).logits[:, prefix:]
        bias = segment_bias(batch.segments[row : row + 1, :length], prefix)
        found = model(model.visual(patches), ids, positions, bias, prefix)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_cached_decoding_writes_what_a_full_forward_predicts(folder: Path) -> None:
    model, tokenizer = load_model(folder)
    prompter = Prompter(tokenizer)
    pixels = Sampler(tokenizer, ("target",), 2, 1)[0].pixels
    video = video_tokens(model, pixels)
    texts = ("Describe the video.", "How many objects are there?")
    prompts = [prompter.prompt(text) for text in texts]
    answers = generate(model, prompter, video, prompts, max_tokens=24)
    agreement = measure(model, prompter, video, prompts, answers)
    assert agreement.positions >= 24
    cut_ends = sum(len(answer) == 24 for answer in answers)
    assert agreement.positions - agreement.same <= cut_ends


def test_a_missing_checkpoint_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="lvspec miniworld train"):
        load_model(tmp_path)
