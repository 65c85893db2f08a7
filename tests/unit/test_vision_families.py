"""The draft must see in a LLaVA prompt what the host's own forward would show it."""

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sglang.srt.managers.schedule_batch import (
    MM_PAD_SHIFT_VALUE,
    Modality,
    MultimodalDataItem,
    MultimodalInputs,
)
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.models.llava import LlavaBaseForCausalLM

from lvspec_sglang.draft.vision import FAMILIES, PromptEmbedder, Span, prompt_rope, visible_spans
from lvspec_sglang.draft.vision.embedder import FeatureCache
from lvspec_sglang.draft.vision.qwen2_vl import Qwen2VLFamily
from lvspec_sglang.pruning import Grid
from lvspec_sglang.tiny import DRAFT
from tests.tiny_llava import write_llava_onevision

HIDDEN, VOCAB, IMAGE_TOKEN = 8, 32, 31
PATCH, SIDE = 2, 4
SIZE = PATCH * SIDE  # a picture of 8 x 8 pixels is 4 x 4 tokens


class Decoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(VOCAB, HIDDEN)
        self.image_newline = torch.nn.Parameter(torch.randn(HIDDEN))


class LanguageModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder()

    def forward(self, *args: Any, input_embeds: torch.Tensor) -> torch.Tensor:
        return input_embeds


class Tower(torch.nn.Linear):
    device = torch.device("cpu")
    config = SimpleNamespace(image_size=SIZE)


class LlavaQwenForCausalLM(LlavaBaseForCausalLM):
    """The host's layout and merging around a vision tower of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            vocab_size=VOCAB,
            image_token_index=IMAGE_TOKEN,
            image_aspect_ratio="anyres_max_9",
            image_grid_pinpoints=[[SIZE, SIZE], [SIZE, 2 * SIZE], [2 * SIZE, 2 * SIZE]],
        )
        self.image_grid_pinpoints = self.config.image_grid_pinpoints
        self.image_size, self.patch_size = SIZE, PATCH
        self.image_feature_len = SIDE**2
        self.mm_patch_merge_type = "spatial_unpad"
        self.vision_tower = Tower(3 * PATCH**2, HIDDEN)
        self.language_model = LanguageModel()
        self.tower_passes = 0

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.tower_passes += 1
        patches = torch.nn.functional.unfold(pixel_values.float(), PATCH, stride=PATCH)
        return self.vision_tower(patches.transpose(1, 2))


@pytest.fixture
def model() -> Iterator[LlavaQwenForCausalLM]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield LlavaQwenForCausalLM()


def prompt(
    model: LlavaQwenForCausalLM, tiles: list[int], modality: Modality, separated: bool = False
) -> tuple[list[int], MultimodalInputs]:
    """Token ids (with pad values) and multimodal inputs of pictures of ``tiles`` tiles each."""
    noise = np.random.default_rng(len(tiles))
    items = []
    for count in tiles:
        item = MultimodalDataItem(
            feature=noise.standard_normal((count, 3, SIZE, SIZE)).astype(np.float16),
            modality=modality,
            model_specific_data={
                "image_sizes": [(2 * SIZE, 2 * SIZE - 2)],
                "image_aspect_ratio": "anyres_max_9" if count > 1 else "pad",
            },
        )
        item.set_pad_value()
        items.append(item)
    inputs = MultimodalInputs(mm_items=items)
    between = [IMAGE_TOKEN, 7] if separated else [IMAGE_TOKEN]
    ids = array("q", [1, 2, *(between * len(tiles)), 3, 4, 5])
    return list(model.pad_input_ids(ids, inputs)), inputs


def as_the_host_merges(
    model: LlavaQwenForCausalLM, ids: list[int], inputs: MultimodalInputs
) -> torch.Tensor:
    tokens = torch.tensor(ids)
    batch = SimpleNamespace(
        forward_mode=ForwardMode.EXTEND,
        batch_size=1,
        mm_inputs=[inputs],
        extend_start_loc=torch.tensor([0]),
        extend_seq_lens=torch.tensor([len(ids)]),
        extend_prefix_lens_cpu=[0],
    )
    return model.forward(tokens, torch.arange(len(ids)), batch)


def embed(
    embedder: PromptEmbedder, ids: torch.Tensor, positions: torch.Tensor, inputs: Any
) -> torch.Tensor:
    return embedder.embed(ids, positions, inputs, embedder.family.spans(inputs))


CASES = {
    "picture": ([5], Modality.IMAGE, False),
    "two pictures": ([1, 1], Modality.IMAGE, False),
    "two pictures with text between": ([1, 1], Modality.IMAGE, True),
    "video": ([1] * 17, Modality.VIDEO, False),
    "video with text between": ([1] * 17, Modality.VIDEO, True),
    "video whose pads outnumber its features": ([1] * 3, Modality.VIDEO, False),
}


@pytest.mark.parametrize("case", CASES)
def test_llava_draft_sees_what_the_host_merges(model: LlavaQwenForCausalLM, case: str) -> None:
    ids, inputs = prompt(model, *CASES[case])
    expected = as_the_host_merges(model, ids, inputs)
    seen = embed(PromptEmbedder(model), torch.tensor(ids), torch.arange(len(ids)), inputs)
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)


def test_llava_draft_sees_the_same_in_any_part_of_a_prompt(model: LlavaQwenForCausalLM) -> None:
    ids, inputs = prompt(model, [1] * 17, Modality.VIDEO, separated=True)
    embedder, tokens = PromptEmbedder(model), torch.tensor(ids)
    whole = embed(embedder, tokens, torch.arange(len(ids)), inputs)
    for positions in (torch.arange(9, 40), torch.tensor([0, 3, 8, 11, len(ids) - 4])):
        torch.testing.assert_close(
            embed(embedder, tokens[positions], positions, inputs), whole[positions]
        )


def test_llava_spans_cover_the_pads_and_nothing_else(model: LlavaQwenForCausalLM) -> None:
    ids, inputs = prompt(model, [1] * 17, Modality.VIDEO, separated=True)
    spans = FAMILIES["LlavaQwenForCausalLM"].spans(inputs)
    covered = {position for span in spans for position in range(span.start, span.stop)}
    assert [span.item for span in spans] == list(range(17))
    assert covered == {position for position, token in enumerate(ids) if token >= VOCAB}


def test_llava_encodes_a_prompt_in_one_pass_and_remembers_it(model: LlavaQwenForCausalLM) -> None:
    ids, inputs = prompt(model, [1] * 17, Modality.VIDEO)
    embedder, tokens = PromptEmbedder(model), torch.tensor(ids)
    text = torch.tensor([0, 1, len(ids) - 1])
    embed(embedder, tokens[text], text, inputs)
    assert model.tower_passes == 0
    for _ in range(2):
        embed(embedder, tokens, torch.arange(len(ids)), inputs)
        assert model.tower_passes == 1


def test_llava_tells_a_picture_from_a_video_frame_of_the_same_pixels(
    model: LlavaQwenForCausalLM,
) -> None:
    embedder = PromptEmbedder(model)
    for modality in (Modality.IMAGE, Modality.VIDEO):
        ids, inputs = prompt(model, [1, 1], modality)
        seen = embed(embedder, torch.tensor(ids), torch.arange(len(ids)), inputs)
        torch.testing.assert_close(seen, as_the_host_merges(model, ids, inputs))


def test_llava_encoding_leaves_the_model_as_it_was(model: LlavaQwenForCausalLM) -> None:
    _, inputs = prompt(model, [5], Modality.IMAGE)
    language_model = model.language_model
    inputs.mm_items[0].feature = inputs.mm_items[0].feature[:, :1]
    with pytest.raises(RuntimeError):
        FAMILIES["LlavaQwenForCausalLM"].encode(model, inputs, [0])
    assert model.language_model is language_model


def test_qwen_spans_of_one_item_share_its_features() -> None:
    items = [SimpleNamespace(offsets=[(2, 5), (8, 9)]), SimpleNamespace(offsets=[(12, 12)])]
    spans = FAMILIES["Qwen2_5_VLForConditionalGeneration"].spans(SimpleNamespace(mm_items=items))
    assert spans == [Span(0, 2, 6, 0), Span(0, 8, 10, 4), Span(1, 12, 13, 0)]


@pytest.mark.parametrize(
    ("length", "stops"), [(30, [10, 20]), (15, [10, 15]), (12, [10]), (4, [4]), (1, [])]
)
def test_a_prompt_cut_short_shows_what_is_left_of_its_videos(length: int, stops: list[int]) -> None:
    family = FAMILIES["Qwen2_5_VLForConditionalGeneration"]
    inputs = SimpleNamespace(mm_items=[SimpleNamespace(offsets=[(2, 9), (12, 19)])])
    pad = MM_PAD_SHIFT_VALUE + 7
    ids = [pad if 2 <= place < 10 or 12 <= place < 20 else 5 for place in range(30)]
    for rest in ([], [5] * 30):  # whether or not the turn is as long as what was cut off
        found = visible_spans(family, inputs, array("q", [*ids[:length], *rest]))
        assert [span.stop for span in found] == stops
    assert visible_spans(family, None, ids) == []


def test_positions_go_on_from_where_a_prompt_was_cut() -> None:
    table = torch.tensor(
        [[0, 1, 2, 2, 2, 2, 4, 5], [0, 1, 2, 2, 3, 3, 4, 5], [0, 1, 2, 3, 2, 3, 4, 5]]
    )
    inputs = SimpleNamespace(mrope_positions=table, mrope_position_delta=torch.tensor([[-2]]))
    for length, delta in ((9, -2), (8, -2), (7, -2), (6, -2), (3, 0), (2, 0)):
        rope, found = prompt_rope(inputs, length)
        assert rope is not None and rope.shape[1] == min(length, 8)
        assert found == delta
    assert prompt_rope(None, 5) == (None, 0)


def test_feature_cache_counts_a_replaced_entry_once_and_drops_the_oldest() -> None:
    cache = FeatureCache(limit_bytes=100)
    cache.put("a", torch.zeros(10))
    cache.put("a", torch.zeros(10))
    cache.put("b", torch.zeros(15))
    assert cache.bytes == 100
    cache.get("a")
    cache.put("c", torch.zeros(5))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.bytes == 60


def test_tiny_llava_checkpoint_is_complete_and_offline(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoProcessor, SiglipVisionModel

    path = write_llava_onevision(tmp_path / "model", DRAFT, seed=1)
    config = json.loads((path / "config.json").read_text())
    weights = load_file(path / "model.safetensors")
    tower = SiglipVisionModel.from_pretrained(config["mm_vision_tower"])
    assert weights["model.mm_projector.0.weight"].shape == (DRAFT.hidden, config["mm_hidden_size"])
    assert weights["model.image_newline"].shape == (DRAFT.hidden,)
    assert tower.config.hidden_size == config["mm_hidden_size"]
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]}]
    ids = AutoProcessor.from_pretrained(path).tokenizer.apply_chat_template(chat, return_dict=False)
    assert ids.count(config["image_token_index"]) == 1


def test_tiny_llava_checkpoint_refuses_a_path_the_host_would_misread(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose another directory"):
        write_llava_onevision(tmp_path / "clips", DRAFT, seed=1)


@pytest.mark.parametrize(
    ("clips", "tokens", "grid"),
    [
        ([[3, 8, 12]], 72, Grid(3, 4, 6)),
        ([[3, 8, 12]], 40, Grid(1, 1, 40)),  # a turn cut off within it
        ([[2, 8, 12], [40, 8, 12]], 42 * 24, Grid(42, 4, 6)),
        ([[1, 8, 12], [40, 8, 16]], 24 + 40 * 32, Grid(1, 1, 24 + 40 * 32)),
        ([[1, 8, 8], [3, 8, 16]], 16 + 96, Grid(1, 1, 112)),
    ],
)
def test_the_clips_of_a_qwen_request_are_one_item(
    clips: list[list[int]], tokens: int, grid: Grid
) -> None:
    item = SimpleNamespace(video_grid_thw=torch.tensor(clips))
    assert Qwen2VLFamily().grid(item, tokens) == grid
