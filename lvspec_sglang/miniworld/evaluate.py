"""What a model gets right on held-out clips, and whether it looks at the video at all."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lvspec_sglang.miniworld.clips import read_frames, write_clip
from lvspec_sglang.miniworld.data import Prompter
from lvspec_sglang.miniworld.decode import generate, video_tokens
from lvspec_sglang.miniworld.net import MiniVL
from lvspec_sglang.miniworld.scene import GROUPS, HELD_OUT
from lvspec_sglang.miniworld.score import Score, score_answers

QUESTIONS_A_CLIP = 4
CONDITIONS = ("true", "shuffled", "blank", "swapped")


@dataclass
class HeldOut:
    """Clips never trained on: truth lines, and pixels uint8 [N, frames, H, W, 3] from mp4 files."""

    truth: list[dict[str, Any]]
    pixels: Tensor

    @classmethod
    def make(cls, clips: int, seed: int = 0) -> HeldOut:
        """Write, encode, decode `clips` clips from the held-out seeds, starting at `seed`."""
        truth, frames = [], []
        with tempfile.TemporaryDirectory() as folder:
            for number in range(clips):
                line = write_clip(HELD_OUT + seed + number, Path(folder))
                path = Path(folder) / line["video"]
                frames.append(read_frames(path))
                path.unlink()
                truth.append(line)
        return cls(truth, torch.from_numpy(np.stack(frames)))

    def under(self, condition: str) -> Tensor:
        """The pixels under a condition: true, shuffled in time, blank, or the next clip's."""
        if condition == "true":
            return self.pixels
        if condition == "blank":
            return torch.full_like(self.pixels, 128)
        if condition == "swapped":
            return self.pixels.roll(1, 0)
        if condition == "shuffled":
            order = list(range(2 * GROUPS))
            rows = []
            for number, clip in enumerate(self.pixels):
                random.Random(number).shuffle(order)
                rows.append(clip[order])
            return torch.stack(rows)
        raise ValueError(f"unknown condition {condition!r}: use one of {', '.join(CONDITIONS)}")


def answer_all(
    model: MiniVL,
    prompter: Prompter,
    held_out: HeldOut,
    condition: str = "true",
    questions: int = QUESTIONS_A_CLIP,
    follow_up: bool = False,
    batch: int = 50,
) -> list[dict[str, Any]]:
    """Greedy answers in the form `lvspec miniworld score` reads: the caption and some questions.

    A question is a chat's first turn, or with `follow_up` its second, after the own caption.
    """
    video = video_tokens(model, held_out.under(condition))

    def answer(prompts: list[tuple[int, str | None, list[int]]]) -> list[dict[str, Any]]:
        answers = []
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            rows = video[[number for number, _, _ in part]]
            texts = generate(model, prompter, rows, [prompt for _, _, prompt in part])
            for (number, question, _), ids in zip(part, texts, strict=True):
                name = held_out.truth[number]["video"]
                text = prompter.tokenizer.decode(ids)
                answers.append({"video": name, "question": question, "text": text})
        return answers

    captions = answer(
        [
            (number, None, prompter.prompt(line["caption_prompt"]))
            for number, line in enumerate(held_out.truth)
        ]
    )
    asked: list[tuple[int, str | None, list[int]]] = []
    for number, line in enumerate(held_out.truth):
        earlier = [(line["caption_prompt"], captions[number]["text"])] if follow_up else []
        for question in choose_questions(line, questions):
            asked.append((number, question, prompter.prompt(question, earlier)))
    return captions + answer(asked)


def choose_questions(line: dict[str, Any], questions: int) -> list[str]:
    """Questions of a clip, each of another kind, the same ones every time."""
    rng = random.Random(line["seed"])
    by_kind: dict[str, list[str]] = {}
    for item in line["questions"]:
        by_kind.setdefault(item["kind"], []).append(item["question"])
    kinds = rng.sample(sorted(by_kind), min(questions, len(by_kind)))
    return [rng.choice(by_kind[kind]) for kind in kinds]


def chance(held_out: HeldOut) -> Score:
    """Score of true facts that belong to the clip before: what looking at no video can earn."""
    score = Score()
    for here, other in zip(held_out.truth, [held_out.truth[-1], *held_out.truth[:-1]], strict=True):
        score.add_facts(here["video"], here["facts"], other["facts"])
    return score


def by_kind(score: Score) -> dict[str, tuple[int, int]]:
    """Right and total facts of each kind; "circle.color" and "ring.color" are both "color"."""
    kinds: dict[str, tuple[int, int]] = {}
    for key, (right, total) in score.tally.items():
        kind = key.split(".")[0] if key.startswith("event") else key.split(".")[-1]
        known = kinds.get(kind, (0, 0))
        kinds[kind] = known[0] + right, known[1] + total
    return kinds


def video_table(model: MiniVL, prompter: Prompter, held_out: HeldOut) -> list[list[str]]:
    """Caption accuracy by kind of fact under each condition and by chance, as rows of text."""
    columns = {}
    for condition in CONDITIONS:
        answers = answer_all(model, prompter, held_out, condition, questions=0)
        columns[condition] = score_answers(held_out.truth, answers)["captions"]
    columns["chance"] = chance(held_out)
    kinds = {name: by_kind(score) for name, score in columns.items()}
    rows = [["fact", *columns]]
    for kind in sorted(kinds["true"]):
        cells = [kinds[name].get(kind, (0, 1)) for name in columns]
        rows.append([kind, *(f"{100 * right / total:.1f}" for right, total in cells)])
    rows.append(["all", *(f"{100 * score.accuracy:.1f}" for score in columns.values())])
    return rows
