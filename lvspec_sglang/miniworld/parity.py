"""Whether SGLang and transformers write the same greedy tokens for the same clips."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lvspec_sglang.miniworld.clips import write_clip
from lvspec_sglang.miniworld.scene import HELD_OUT, SAMPLED


@dataclass(frozen=True)
class Parity:
    """Texts of both engines for one prompt."""

    video: str
    prompt: str
    transformers: str
    sglang: str

    @property
    def same(self) -> bool:
        return self.transformers == self.sglang


def compare(directory: Path, clips: int, seed: int, server: dict[str, Any]) -> list[Parity]:
    """Both engines' greedy answers, in float32, to each clip's caption prompt and one question.

    `server` holds extra arguments of sglang.Engine; the clips go through its own video path.
    """
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number in range(clips):
            line = write_clip(HELD_OUT + seed + number, Path(folder))
            for prompt in (line["caption_prompt"], line["questions"][-1]["question"]):
                jobs.append((str(Path(folder) / line["video"]), prompt))
        theirs = with_transformers(directory, jobs)
        ours = with_sglang(directory, jobs, server)
    return [
        Parity(Path(video).name, prompt, a, b)
        for (video, prompt), a, b in zip(jobs, theirs, ours, strict=True)
    ]


def chat_text(processor: Any, prompt: str) -> str:
    """The chat form of a first turn about one video."""
    content = [{"type": "video"}, {"type": "text", "text": prompt}]
    return str(
        processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    )


@torch.inference_mode()
def with_transformers(directory: Path, jobs: list[tuple[str, str]]) -> list[str]:
    """Greedy texts of transformers' own model, processor and generate."""
    import decord
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(directory)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
    texts = []
    for video, prompt in jobs:
        frames = decord.VideoReader(video).get_batch(list(SAMPLED)).asnumpy()
        inputs = processor(
            text=[chat_text(processor, prompt)],
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            return_tensors="pt",
        )
        tokens = model.generate(**inputs, max_new_tokens=160, do_sample=False)
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        texts.append(processor.decode(answer, skip_special_tokens=True))
    return texts


def with_sglang(directory: Path, jobs: list[tuple[str, str]], server: dict[str, Any]) -> list[str]:
    """Greedy texts of an SGLang engine with default video settings."""
    import sglang
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(directory)
    engine = sglang.Engine(model_path=str(directory), dtype="float32", **server)
    try:
        return [
            engine.generate(
                prompt=chat_text(processor, prompt),
                video_data=[video],
                sampling_params={"temperature": 0, "max_new_tokens": 160},
            )["text"]
            for video, prompt in jobs
        ]
    finally:
        engine.shutdown()
