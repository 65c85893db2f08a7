"""What SGLang's LLaVA does without the patches, and with them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.models.llava import LlavaBaseForCausalLM
from transformers import SiglipVisionConfig, SiglipVisionModel

from lvspec_sglang.patches import CPU_PLATFORM, LVSPEC, llava_dtype, llava_verify


def host_function(name: str) -> Any:
    """The host's own function, whether or not this process has been patched."""
    function = getattr(LlavaBaseForCausalLM, name)
    while "hook_registry" in function.__code__.co_filename:
        function = function.__wrapped__
    return function


class Model(LlavaBaseForCausalLM):
    def __init__(self, language_model: torch.nn.Module) -> None:
        super().__init__()
        self.language_model = language_model


@pytest.mark.parametrize("patch", (*llava_dtype.PATCHES, *llava_verify.PATCHES))
def test_the_host_function_is_the_one_the_patch_was_written_for(patch: Any) -> None:
    assert patch.mismatch() is None
    assert patch in (*CPU_PLATFORM, *LVSPEC)


class Verifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = SimpleNamespace(embed_tokens=torch.nn.Embedding(8, 4))

    def forward(self, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert not kwargs, "a verify batch has no input embeddings"
        return input_ids


@pytest.mark.parametrize("with_pictures", [False, True])
def test_a_verify_batch_goes_to_the_language_model(with_pictures: bool) -> None:
    model = Model(Verifier())
    model.config = SimpleNamespace(vocab_size=8)
    picture = SimpleNamespace(image_offsets=[1], image_pad_len=[4]) if with_pictures else None
    drafted = torch.tensor([3, 5, 2, 6, 1, 7])
    batch = SimpleNamespace(
        forward_mode=ForwardMode.TARGET_VERIFY,
        batch_size=2,
        mm_inputs=[picture, picture],
        extend_start_loc=None,
    )
    arguments = (model, drafted, torch.tensor([9, 10, 11, 19, 20, 21]), batch)
    host = host_function("forward")
    with pytest.raises(ValueError, match="broadcast"):
        host(*arguments)
    assert llava_verify.forward(host, *arguments) is drafted


def test_other_batches_reach_the_host() -> None:
    model = Model(Verifier())
    batch = SimpleNamespace(forward_mode=ForwardMode.DECODE, mm_inputs=None)
    ids = torch.tensor([1])
    assert llava_verify.forward(host_function("forward"), model, ids, ids, batch) is ids


@pytest.fixture
def siglip_model(tmp_path: Path) -> Model:
    tower = tmp_path / "siglip"
    SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=1,
            image_size=4,
            patch_size=2,
        )
    ).save_pretrained(tower)
    model = Model(torch.nn.Linear(1, 1))
    model.multi_modal_projector = torch.nn.Linear(8, 4)
    model.config = SimpleNamespace(mm_vision_tower=str(tower), mm_vision_select_layer=-2)
    return model


def test_tower_and_projector_compute_in_one_dtype(siglip_model: Model) -> None:
    host = host_function("load_weights")
    pixels = torch.tensor(np.ones((2, 3, 4, 4), dtype=np.float16))
    host(siglip_model, [])
    with pytest.raises(RuntimeError, match="dtype"):
        siglip_model.encode_images(pixels)
    llava_dtype.load_weights(host, siglip_model, [])
    features = siglip_model.encode_images(pixels)
    assert features.shape == (2, 4, 4)
    assert features.dtype == torch.float32
