"""Clips for evaluation: their truth as JSON, and their pixels as a server sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lvspec_sglang.miniworld.captions import CAPTION_PROMPTS
from lvspec_sglang.miniworld.habits import TARGET
from lvspec_sglang.miniworld.questions import questions
from lvspec_sglang.miniworld.render import HEIGHT, WIDTH, write_mp4
from lvspec_sglang.miniworld.scene import HELD_OUT, SAMPLED, Scene, facts, make_scene

CAPTION_TOKENS, ANSWER_TOKENS = 200, 60
ASKED = 4  # questions a clip, after its caption


def truth_of(scene: Scene, video: str) -> dict[str, Any]:
    """The line of truth.jsonl for a scene: video, caption_prompt, questions, facts."""
    return {
        "video": video,
        "caption_prompt": CAPTION_PROMPTS[0],
        "questions": [
            {"question": item.text, "kind": item.kind, "value": item.value}
            for item in questions(scene, TARGET)
        ],
        "facts": facts(scene),
        "seed": scene.seed,
    }


def chat_requests(truth: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    """OpenAI chat requests about a clip of ``directory``: its caption, then its first questions.

    The lines `sglang.bench_serving --dataset-name openai` reads: beside `messages` and
    `max_tokens` every field goes into the request as it is.
    """
    url = {"url": str((directory / truth["video"]).resolve())}
    asked = [
        (truth["caption_prompt"], CAPTION_TOKENS),
        *((item["question"], ANSWER_TOKENS) for item in truth["questions"][:ASKED]),
    ]
    return [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": url},
                        {"type": "text", "text": text},
                    ],
                }
            ],
            "max_tokens": limit,
            "temperature": 0,
            "ignore_eos": False,
            "stream_options": {"include_usage": True},
        }
        for text, limit in asked
    ]


def write_clip(seed: int, directory: Path) -> dict[str, Any]:
    """Write the clip of a seed as an mp4 and return its truth."""
    scene = make_scene(seed)
    name = f"held_{seed - HELD_OUT}" if seed >= HELD_OUT else f"train_{seed}"
    path = directory / f"{name}.mp4"
    write_mp4(scene, path)
    return truth_of(scene, path.name)


def read_frames(path: Path) -> np.ndarray:
    """The sampled frames of a file at the size the models see, uint8 [frames, H, W, 3].

    The steps are those of a Qwen2.5-VL server with default flags: two frames a second, then the
    checkpoint's own video processor, which halves the picture (bicubic).
    """
    import decord
    import torch
    from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]
    from torchvision.transforms.functional import resize  # type: ignore[import-untyped]

    reader = decord.VideoReader(str(path))
    frames = torch.from_numpy(reader.get_batch(list(SAMPLED)).asnumpy()).permute(0, 3, 1, 2)
    small = resize(frames, [HEIGHT, WIDTH], InterpolationMode.BICUBIC, antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy()
