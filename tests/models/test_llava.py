"""LLaVA-OneVision: a video is a list of frames; answers are the target's own there too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvspec_sglang import tiny
from lvspec_sglang.clips import moving_square
from lvspec_sglang.serving import LocalServer, together
from tests import tiny_llava
from tests.e2e.prompts import answer, answer_all, chat

FRAMES = 24


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LocalServer]]:
    """The target alone, and LVSPEC with a noisy copy and a tenth of each video as draft, and with
    the target itself and whole videos."""
    folder = tmp_path_factory.mktemp("llava")
    target = tiny_llava.write_llava_onevision(folder / "target", tiny.TARGET, seed=1)
    near = tiny.write_perturbed(target, folder / "near", noise=0.02, seed=2)
    common = ("--dtype", "float32", "--random-seed", "1")

    def lvspec(draft: Path, config: dict[str, Any]) -> LocalServer:
        return LocalServer(
            target, *common, "--chunked-prefill-size", "50", "--speculative-algorithm", "LVSPEC",
            "--speculative-draft-model-path", str(draft),
            "--lvspec-config", json.dumps({"preset": "strict", **config}),
            env={"LVSPEC_CHECK_DRAFT_KV": "1", "LVSPEC_POISON_DRAFT_KV": "1"},
        )  # fmt: skip

    servers = {
        "alone": LocalServer(target, *common),
        "near": lvspec(near, {"pruning": "verifier", "keep": 0.1, "keep_at_least": 1}),
        "same": lvspec(target, {"pruning": "none"}),
    }
    with together(*servers.values()):
        yield servers


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("frames")
    frames = []
    for number, frame in enumerate(moving_square(FRAMES, seed=5)):
        frames.append(str(folder / f"{number}.png"))
        Image.fromarray(frame).save(frames[-1])
    greedy = {"sampling_params": {"temperature": 0, "max_new_tokens": 40}}
    video = {"image_data": frames, "modalities": ["video"], **greedy}
    seen = "<image>" * FRAMES + "\n"
    return {
        "text": {"text": chat("hello there"), **greedy},
        "image": {
            "text": chat("<image>\nwhat is it?"), "image_data": [frames[3]],
            "modalities": ["image"], **greedy,
        },
        "video": {"text": chat(seen + "what is it?"), **video},
        "second turn": {"text": chat(seen + "what is it?", "a square", "and then?"), **video},
    }  # fmt: skip


@pytest.mark.parametrize("draft", ["near", "same"])
def test_answers_are_the_targets(
    llava: dict[str, LocalServer], payloads: dict[str, dict[str, Any]], draft: str
) -> None:
    for name, payload in payloads.items():
        assert answer(llava[draft], payload) == answer(llava["alone"], payload), name


def test_several_at_once(
    llava: dict[str, LocalServer], payloads: dict[str, dict[str, Any]]
) -> None:
    mixed = list(payloads.values())
    assert answer_all(llava["near"], mixed) == [answer(llava["alone"], each) for each in mixed]


def test_a_draft_equal_to_the_target_is_always_accepted(
    llava: dict[str, LocalServer], payloads: dict[str, dict[str, Any]]
) -> None:
    meta = llava["same"].generate(**payloads["video"])["meta_info"]
    assert meta["spec_verify_ct"] == -(-(meta["completion_tokens"] - 1) // 11)
