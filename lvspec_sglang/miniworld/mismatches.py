"""Where the draft departs from the target, how visual each place is, and what yielding would cost.

The target's own greedy texts are read by both models. At each mismatch the target goes on from the
draft's token instead, and the facts it then gets wrong more than before are what that token costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lvspec_sglang.miniworld.agreement import predict
from lvspec_sglang.miniworld.data import Prompter
from lvspec_sglang.miniworld.decode import Cache, branch, generate, read, video_tokens
from lvspec_sglang.miniworld.evaluate import HeldOut, choose_questions
from lvspec_sglang.miniworld.net import VIDEO_TOKENS, MiniVL
from lvspec_sglang.miniworld.score import Score, score_answers
from lvspec_sglang.relevance.attention import AttentionFocus, visual_attention
from lvspec_sglang.verify.guards import CLASSES, guarded_tokens

FLOOR = 0.003
QUESTIONS_A_CLIP = 2
BATCH = 16
"""Texts or continuations at a time: each holds keys and values of its own."""


@dataclass
class Mismatches:
    """Texts of the target, and the M mismatches in them that a relaxed rule may accept.

    Those that a guard or the plausibility floor refuses are not among them.

    Attributes:
        agreed: a text each, bool ``[tokens]``, end token included: the draft predicts the token.
        text, place: int ``[M]``, where a mismatch is.
        scores: float16 ``[M, layers]``, mass times focus of the query that predicts the place,
            mean over heads.
        lost: int ``[M]``, facts that accepting it loses; negative where it gains some.
        facts: facts that the texts are scored on.
        wrong: those of them that the target itself gets wrong.
        drafted: float16 ``[positions, layers]``, scores of every place that is ever drafted.
    """

    agreed: list[np.ndarray]
    text: np.ndarray
    place: np.ndarray
    scores: np.ndarray
    lost: np.ndarray
    facts: int
    wrong: int
    drafted: np.ndarray


class Text(NamedTuple):
    """A greedy text of the target: its clip, what was asked (None: a caption), prompt, tokens."""

    clip: int
    question: str | None
    prompt: list[int]
    tokens: list[int]


class Looks:
    """An observer of each layer's score of the queries from slot `first` on, [queries] float32."""

    def __init__(self, prompter: Prompter, first: int) -> None:
        self.first = first
        self.video = slice(prompter.prefix - 1 - VIDEO_TOKENS, prompter.prefix - 1)
        self.layers: list[Tensor] = []

    def __call__(self, number: int, q: Tensor, k: Tensor, bias: Tensor) -> None:
        assert number == len(self.layers), f"layer {number} after {len(self.layers)} others"
        q, k, bias = q[0, :, self.first :], k[0], bias[0, :, self.first :]
        k = k.repeat_interleave(len(q) // len(k), 0)
        logits = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5 + bias
        visual = torch.zeros(k.shape[1], dtype=torch.bool)
        visual[self.video] = True
        self.layers.append(AttentionFocus.score(*visual_attention(logits, visual)))


def collect(
    target: MiniVL,
    draft: MiniVL,
    prompter: Prompter,
    held_out: HeldOut,
    say: Callable[[str], None],
) -> Mismatches:
    """Mismatches in the target's captions and follow-up answers; the models are on the CPU."""
    video, drafts_video = (video_tokens(model, held_out.pixels, BATCH) for model in (target, draft))
    texts = _texts(target, prompter, video, held_out)
    say(f"{len(texts)} texts of {sum(len(text.tokens) for text in texts)} tokens")
    vocab = target.language_model.embed_tokens.num_embeddings
    guarded = guarded_tokens(prompter.tokenizer, vocab, CLASSES)
    end = prompter.tokenizer.eos_token_id
    agreed: list[np.ndarray] = []
    reference: list[np.ndarray] = []
    rows: list[tuple[int, int, np.ndarray, int]] = []
    facts = wrong = 0
    for number, text in enumerate(texts):
        clip = slice(text.clip, text.clip + 1)
        wanted = torch.tensor([*text.tokens, end])
        drafts = predict(draft, prompter, drafts_video[clip], [text.prompt], [wanted.tolist()])
        drafted = torch.tensor(drafts[0])
        looks = Looks(prompter, prompter.prefix + len(text.prompt) - 1)
        logits, cache = read(target, prompter, video[clip], text.prompt, text.tokens, looks)
        places = _acceptable(logits, wanted, drafted, guarded)
        scores = torch.stack(looks.layers, 1).half().numpy()
        reference.append(scores[1:])
        truth = held_out.truth[text.clip]
        score = _score(prompter, truth, text.question, text.tokens)
        facts += score.facts
        wrong += len(score.wrong)
        endings = _go_on(target, prompter, cache, text, places, drafted[places].tolist())
        for place, row, tokens in zip(places, scores[places], endings, strict=True):
            lost = len(_score(prompter, truth, text.question, tokens).wrong) - len(score.wrong)
            rows.append((number, place, row, lost))
        agreed.append((drafted == wanted).numpy())
        if (number + 1) % 30 == 0:
            say(f"{number + 1} texts read, {len(rows)} mismatches followed")
    text_numbers, at, found, costs = zip(*rows, strict=True) if rows else ((), (), (), ())
    layers = target.size.layers
    return Mismatches(
        agreed,
        np.array(text_numbers, int),
        np.array(at, int),
        np.array(found, np.float16).reshape(-1, layers),
        np.array(costs, int),
        facts,
        wrong,
        np.concatenate(reference),
    )


def _texts(model: MiniVL, prompter: Prompter, video: Tensor, held_out: HeldOut) -> list[Text]:
    """The captions, then answers to questions in a second turn after them."""

    def answer(asked: list[tuple[int, str | None, list[int]]]) -> list[Text]:
        texts = []
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            clips, _, prompts = (list(column) for column in zip(*part, strict=True))
            answers = generate(model, prompter, video[clips], prompts)
            texts += [Text(*row, tokens) for row, tokens in zip(part, answers, strict=True)]
        return texts

    asks = [line["caption_prompt"] for line in held_out.truth]
    captions = answer([(clip, None, prompter.prompt(ask)) for clip, ask in enumerate(asks)])
    later: list[tuple[int, str | None, list[int]]] = []
    for clip, (line, ask) in enumerate(zip(held_out.truth, asks, strict=True)):
        said = prompter.tokenizer.decode(captions[clip].tokens)
        for question in choose_questions(line, QUESTIONS_A_CLIP):
            later.append((clip, question, prompter.prompt(question, [(ask, said)])))
    return captions + answer(later)


def _acceptable(logits: Tensor, wanted: Tensor, drafted: Tensor, guarded: Tensor) -> list[int]:
    """Places of mismatches that neither guard nor floor refuses.

    The first token comes from prefill and is never drafted.
    """
    at = torch.arange(len(wanted))
    likely = logits[at, drafted] - logits[at, wanted] >= log(FLOOR)
    kept = (drafted != wanted) & likely & ~guarded[drafted] & ~guarded[wanted] & (at > 0)
    return kept.nonzero()[:, 0].tolist()


def _go_on(
    model: MiniVL,
    prompter: Prompter,
    cache: Cache,
    text: Text,
    places: list[int],
    drafted: list[int],
) -> list[list[int]]:
    """The text up to each place, the drafted token there, and the model's own way on."""
    first = prompter.prefix + len(text.prompt)
    endings = []
    for start in range(0, len(places), BATCH):
        part = slice(start, start + BATCH)
        slots = [first + place for place in places[part]]
        endings += branch(model, prompter, cache, slots, drafted[part])
    return [
        [*text.tokens[:place], token, *ending]
        for place, token, ending in zip(places, drafted, endings, strict=True)
    ]


def _score(
    prompter: Prompter, truth: dict[str, Any], question: str | None, tokens: list[int]
) -> Score:
    said = prompter.tokenizer.decode(tokens)
    answer = {"video": truth["video"], "question": question, "text": said}
    return score_answers([truth], [answer])["all"]
