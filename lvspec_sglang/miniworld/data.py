"""Training batches, drawn afresh from seeds: pixels, chats about them, and what to learn."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lvspec_sglang.miniworld.captions import CAPTION_PROMPTS, caption
from lvspec_sglang.miniworld.cells import cell_labels
from lvspec_sglang.miniworld.habits import Habit
from lvspec_sglang.miniworld.lexicon import fact_of
from lvspec_sglang.miniworld.model import MERGE, PATCH
from lvspec_sglang.miniworld.net import GRID, VIDEO_TOKENS
from lvspec_sglang.miniworld.questions import questions
from lvspec_sglang.miniworld.render import render
from lvspec_sglang.miniworld.scene import GROUPS, HELD_OUT, SAMPLED, Scene, make_scene
from lvspec_sglang.miniworld.tokenizer import SYSTEM
from lvspec_sglang.miniworld.tracks import track_labels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXT_TOKENS = 320
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class Batch:
    """B clips with their chats.

    pixels: uint8 [B, frames, H, W, 3]; ids, segments: [B, S]; positions: [3, B, S];
    labels, weights: [B, TEXT_TOKENS], the token that follows each text token, and what it counts;
    cells, tracks: uint8 [B, VIDEO_TOKENS, kinds].
    """

    pixels: Tensor
    ids: Tensor
    positions: Tensor
    segments: Tensor
    labels: Tensor
    weights: Tensor
    cells: Tensor
    tracks: Tensor

    def to(self, device: str) -> Batch:
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


class Prompter:
    """Lays out prompts and chats as token ids with M-RoPE positions."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        opening = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        head = self.encode(opening)
        video = tokenizer.convert_tokens_to_ids("<|video_pad|>")
        end = tokenizer.convert_tokens_to_ids("<|vision_end|>")
        self.prefix_ids = [*head, *[video] * VIDEO_TOKENS, end]
        self.prefix = len(self.prefix_ids)
        rows, columns = GRID[1] // MERGE, GRID[2] // MERGE
        grid = np.stack(
            np.meshgrid(np.arange(GROUPS), np.arange(rows), np.arange(columns), indexing="ij")
        )
        start = len(head)
        self.text_start = start + max(rows, columns) + 1
        self.prefix_positions = np.concatenate(
            [
                np.broadcast_to(np.arange(start), (3, start)),
                grid.reshape(3, -1) + start,
                np.full((3, 1), self.text_start - 1),
            ],
            axis=1,
        )
        words = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        self.is_fact = np.array([fact_of(word) is not None for word in words])

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def turn(self, question: str, answer: str, first: bool) -> tuple[list[int], int]:
        """Tokens of a turn after the prefix or an earlier turn, and where the answer starts."""
        opening = "" if first else "\n<|im_start|>user\n"
        asked = self.encode(f"{opening}{question}<|im_end|>\n<|im_start|>assistant\n")
        return asked + self.encode(f"{answer}<|im_end|>"), len(asked)

    def prompt(self, question: str, earlier: Iterable[tuple[str, str]] = ()) -> list[int]:
        """Tokens between the video and the answer to a question, after earlier turns of a chat."""
        tokens: list[int] = []
        for asked, answered in earlier:
            tokens += self.turn(asked, answered, first=not tokens)[0]
        return tokens + self.turn(question, "", first=not tokens)[0][:-1]


class Sampler:
    """Makes batch number `step` of a run: the same seed and step give the same batch."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        habits: tuple[str, ...],
        batch: int,
        seed: int,
        stray: float = 0.06,
        fact_weight: float = 2.0,
        busy: bool = True,
    ) -> None:
        self.prompter = Prompter(tokenizer)
        self.habits, self.batch, self.seed = habits, batch, seed
        self.stray, self.fact_weight, self.busy = stray, fact_weight, busy

    def __getitem__(self, step: int) -> Batch:
        first = (self.seed * 10_000_019 + step * self.batch) % HELD_OUT
        rows = [self._row((first + i) % HELD_OUT) for i in range(self.batch)]
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]
        pixels, ids, positions, *rest = columns
        return Batch(pixels, ids, positions.transpose(0, 1), *rest)

    def _row(self, seed: int) -> tuple[np.ndarray, ...]:
        scene = make_scene(seed, busy=self.busy and seed % 3 > 0)
        rng = random.Random(f"chat/{self.seed}/{seed}")
        habit = Habit(rng.choice(self.habits), self.stray, rng)
        return (
            noisy(render(scene, SAMPLED), seed),
            *self._chat(self._turns(scene, habit, rng), rng.random() < 0.3),
            cell_labels(scene),
            track_labels(scene),
        )

    def _turns(self, scene: Scene, habit: Habit, rng: random.Random) -> list[tuple[str, str]]:
        """The caption, then questions: each next one of a kind drawn at random."""
        turns = [(rng.choice(CAPTION_PROMPTS), caption(scene, habit))]
        kinds: dict[str, list[tuple[str, str]]] = {}
        for item in questions(scene, habit):
            kinds.setdefault(item.kind, []).append((item.text, item.answer))
        for _ in range(14):
            kind = rng.choice(sorted(kinds))
            turns.append(kinds[kind].pop(rng.randrange(len(kinds[kind]))))
            if not kinds[kind]:
                del kinds[kind]
            if not kinds:
                break
        if rng.random() < 0.3:
            turns.insert(rng.randrange(4), turns.pop(0))
        return turns

    def _chat(self, turns: list[tuple[str, str]], together: bool) -> tuple[np.ndarray, ...]:
        """One chat of all turns, or every turn a first turn that sees only the video."""
        p = self.prompter
        total = p.prefix + TEXT_TOKENS
        ids = np.full(total, p.tokenizer.pad_token_id, np.int64)
        positions = np.full((3, total), p.text_start, np.int64)
        segments = np.zeros(total, np.int64)
        labels = np.full(TEXT_TOKENS, p.tokenizer.pad_token_id, np.int64)
        weights = np.zeros(TEXT_TOKENS, np.float32)
        ids[: p.prefix], positions[:, : p.prefix] = p.prefix_ids, p.prefix_positions
        at, place = p.prefix, p.text_start
        for number, (question, answer) in enumerate(turns, 1):
            tokens, answer_at = p.turn(question, answer, first=number == 1 or not together)
            stop = at + len(tokens)
            if stop > total:
                break
            ids[at:stop] = tokens
            positions[:, at:stop] = np.arange(place, place + len(tokens))
            segments[at:stop] = 1 if together else number
            learnt = slice(at + answer_at - 1 - p.prefix, stop - 1 - p.prefix)
            labels[learnt] = tokens[answer_at:]
            weights[learnt] = 1 + (self.fact_weight - 1) * p.is_fact[tokens[answer_at:]]
            at = stop
            place = place + len(tokens) if together else p.text_start
        return ids, positions, segments, labels, weights


def noisy(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Pixels as a codec leaves them: a shared shift of up to 3 levels and noise of about 1.5."""
    rng = np.random.default_rng(seed)
    table = rng.normal(rng.uniform(-3, 1.5), rng.uniform(0.3, 2.0), pixels[0].shape)
    table = np.rint(table).astype(np.int16)
    return np.clip(pixels.astype(np.int16) + table, 0, 255).astype(np.uint8)


def patchify(pixels: Tensor) -> Tensor:
    """Normalised patches float32 [B, GROUPS * PATCHES, PATCH_FEATURES] of uint8 frames."""
    b, frames, height, width, _ = pixels.shape
    mean = torch.tensor(CLIP_MEAN, device=pixels.device) * 255
    std = torch.tensor(CLIP_STD, device=pixels.device) * 255
    x = (pixels.float() - mean) / std
    block = PATCH * MERGE
    x = x.view(b, frames // 2, 2, height // block, MERGE, PATCH, width // block, MERGE, PATCH, 3)
    x = x.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8)
    return x.reshape(b, GROUPS * GRID[1] * GRID[2], -1)
