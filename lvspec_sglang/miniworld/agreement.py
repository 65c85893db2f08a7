"""How far greedy drafts of the pair agree: accepted length, and what the disagreements are.

Strict speculative decoding only ever continues the target's own text, so one forward of the draft
over that text gives every round's outcome without running the rounds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lvspec_sglang.miniworld.data import Prompter
from lvspec_sglang.miniworld.decode import layout
from lvspec_sglang.miniworld.lexicon import fact_of
from lvspec_sglang.miniworld.net import MiniVL

SHIFT = 2
"""Positions that a word may be off by to count as shifted."""


@dataclass
class Agreement:
    """Rounds of strict speculation with chains of `chain` tokens.

    `kinds` counts the mismatches that end rounds: "fact" where the target's word states a fact,
    else "filler"; `shifted` counts those of either kind that a shift by SHIFT explains;
    `contradictions` those where draft and target state different values of the same kind of fact.
    """

    chain: int
    rounds: int = 0
    accepted: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    shifted: Counter[str] = field(default_factory=Counter)
    contradictions: int = 0
    positions: int = 0
    same: int = 0

    @property
    def mean_accepted(self) -> float:
        """Accepted draft tokens a round, without the bonus token."""
        return self.accepted / self.rounds if self.rounds else 0.0

    def rows(self) -> list[list[str]]:
        """The table: accepted length, token agreement, and shares of the mismatches."""
        total = max(1, sum(self.kinds.values()))
        share = {name: 100 * count / total for name, count in self.kinds.items()}
        shifts = 100 * sum(self.shifted.values()) / total
        return [
            [f"accepted of {self.chain} (mean, no bonus)", f"{self.mean_accepted:.2f}"],
            ["tokens predicted alike", f"{100 * self.same / max(1, self.positions):.1f} %"],
            ["mismatches", str(sum(self.kinds.values()))],
            ["  at facts", f"{share.get('fact', 0):.1f} %"],
            ["  at filler", f"{share.get('filler', 0):.1f} %"],
            [f"  explained by a shift of 1-{SHIFT} (of either)", f"{shifts:.1f} %"],
            ["  contradicting a fact", f"{100 * self.contradictions / total:.1f} %"],
        ]


def measure(
    draft: MiniVL,
    prompter: Prompter,
    video: Tensor,
    prompts: list[list[int]],
    answers: list[list[int]],
    chain: int = 10,
    batch: int = 25,
) -> Agreement:
    """Agreement of a draft with a target's greedy `answers` (token ids without the end token).

    `video` holds the draft's own video tokens [N, VIDEO_TOKENS, hidden].
    """
    total = Agreement(chain)
    end = prompter.tokenizer.eos_token_id
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        texts = [[*answer, end] for answer in answers[part]]
        drafted = predict(draft, prompter, video[part], prompts[part], texts)
        stops = []
        for text, guess in zip(texts, drafted, strict=True):
            total.positions += len(text)
            total.same += sum(a == b for a, b in zip(text, guess, strict=True))
            stops.append(_rounds(text, guess, total))
        follow = _follow(draft, prompter, video[part], prompts[part], texts, drafted, stops)
        for text, guess, places, chains in zip(texts, drafted, stops, follow, strict=True):
            for place, tail in zip(places, chains, strict=True):
                _classify(prompter, text, guess[place], tail, place, total)
    return total


def _rounds(text: list[int], guess: list[int], total: Agreement) -> list[int]:
    """Play the rounds over one answer; the first token comes from prefill. Returns mismatches."""
    place, stops = 1, []
    while place < len(text):
        run = 0
        while (
            run < total.chain
            and place + run < len(text)
            and text[place + run] == guess[place + run]
        ):
            run += 1
        ended = place + run >= len(text)
        if not ended:
            total.rounds += 1
            total.accepted += run
            if run < total.chain:
                stops.append(place + run)
        place += run + 1
    return stops


def _classify(
    prompter: Prompter, text: list[int], guess: int, tail: list[int], place: int, total: Agreement
) -> None:
    def stated(token: int) -> tuple[str, str] | None:
        return fact_of(prompter.tokenizer.decode([token]))

    wanted, drafted = stated(text[place]), stated(guess)
    kind = "fact" if wanted else "filler"
    total.kinds[kind] += 1
    near = [*text[max(0, place - SHIFT) : place], *text[place + 1 : place + 1 + SHIFT]]
    if guess in near or text[place] in tail:
        total.shifted[kind] += 1
    elif wanted and drafted and wanted[0] == drafted[0] and wanted[1] != drafted[1]:
        total.contradictions += 1


def _joined(prompts: list[list[int]], texts: list[list[int]]) -> list[list[int]]:
    return [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]


@torch.inference_mode()
def predict(
    draft: MiniVL,
    prompter: Prompter,
    video: Tensor,
    prompts: list[list[int]],
    texts: list[list[int]],
) -> list[list[int]]:
    """The draft's greedy token at each place of each text, given the text before it."""
    ids, positions = layout(prompter, _joined(prompts, texts))
    length = ids.shape[1]
    bias = torch.full((1, 1, length, length), -1e4).triu(1)
    device = video.device
    logits = draft(video, ids.to(device), positions.to(device), bias.to(device), prompter.prefix)
    best = logits.argmax(-1).tolist()
    return [
        row[len(prompt) - 1 : len(prompt) - 1 + len(text)]
        for row, prompt, text in zip(best, prompts, texts, strict=True)
    ]


@torch.inference_mode()
def _follow(
    draft: MiniVL,
    prompter: Prompter,
    video: Tensor,
    prompts: list[list[int]],
    texts: list[list[int]],
    drafted: list[list[int]],
    stops: list[list[int]],
) -> list[list[list[int]]]:
    """What the draft writes in the SHIFT places after each mismatched token of its own."""
    base_ids, base_positions = layout(prompter, _joined(prompts, texts))
    rows, base = base_ids.shape
    most = max(map(len, stops), default=0)
    extra = most * SHIFT
    ids = torch.nn.functional.pad(base_ids, (0, extra), value=prompter.tokenizer.pad_token_id)
    positions = torch.nn.functional.pad(base_positions, (0, extra)).clone()
    length = base + extra
    seen = torch.ones(length, length, dtype=torch.bool).tril().repeat(rows, 1, 1)
    seen[:, base:] = False
    for row, places in enumerate(stops):
        head = prompter.prefix + len(prompts[row])
        for number, place in enumerate(places):
            first = base + number * SHIFT
            ids[row, first] = drafted[row][place]
            for step in range(SHIFT):
                where = len(prompts[row]) + place + step + prompter.text_start
                positions[:, row, first + step] = where
                seen[row, first + step, : head + place] = True
                seen[row, first + step, first : first + step + 1] = True
    seen |= torch.eye(length, dtype=torch.bool)
    bias = torch.where(seen, 0.0, -1e4)[:, None].to(video.device)
    tails: list[list[list[int]]] = [[[] for _ in places] for places in stops]
    for step in range(SHIFT):
        logits = draft(
            video, ids.to(video.device), positions.to(video.device), bias, prompter.prefix
        )
        best = logits.argmax(-1).cpu()
        for row, places in enumerate(stops):
            for number in range(len(places)):
                at = base + number * SHIFT + step
                token = int(best[row, at - prompter.prefix])
                tails[row][number].append(token)
                if step + 1 < SHIFT:
                    ids[row, at + 1] = token
    return tails
