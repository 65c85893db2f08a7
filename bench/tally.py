"""Counts a clip out of answers, and a row of figures out of counts."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from lvspec_sglang.bench.bootstrap import differs, interval, ratios
from lvspec_sglang.bench.conversations import GROUPS, group_of
from lvspec_sglang.miniworld.score import Score
from lvspec_sglang.verify.rule import Kind

PARTS = ("captions", *GROUPS)


class Counts(NamedTuple):
    """What a rule did on each clip, ``[clips]`` each.

    Attributes:
        right, facts: by part of the conversation.
        accepted: drafted tokens that stand in the answers.
        host_accepted: the host's count, with those drafted and accepted after an answer's end.
        rounds: verify forwards.
        tokens: tokens of the answers.
        ran_on, answers: answers that did not end by themselves, and all.
        parsed: answers that state all they have to.
        kinds: tokens by the name of their ``Kind``.
    """

    right: dict[str, np.ndarray]
    facts: dict[str, np.ndarray]
    accepted: np.ndarray
    host_accepted: np.ndarray
    rounds: np.ndarray
    tokens: np.ndarray
    ran_on: np.ndarray
    answers: np.ndarray
    parsed: np.ndarray
    kinds: dict[str, int]

    @property
    def all_right(self) -> np.ndarray:
        return np.sum(list(self.right.values()), axis=0)

    @property
    def all_facts(self) -> np.ndarray:
        return np.sum(list(self.facts.values()), axis=0)


def count(truths: Sequence[dict[str, Any]], answers: Sequence[list[dict[str, Any]]]) -> Counts:
    """Score conversations, one a clip: the caption's answer, then those to ``asked``."""
    right = {part: np.zeros(len(truths)) for part in PARTS}
    facts = {part: np.zeros(len(truths)) for part in PARTS}
    parsed = np.zeros(len(truths))
    for clip, (truth, (caption, *later)) in enumerate(zip(truths, answers, strict=True)):
        scores = {part: Score() for part in PARTS}
        scores["captions"].add_caption(truth["video"], truth["facts"], caption["text"])
        for question, answer in zip(truth["asked"], later, strict=True):
            scores[group_of(question)].add_answer(truth["video"], question, answer["text"])
        for part, score in scores.items():
            right[part][clip], facts[part][clip] = score.right, score.facts
            parsed[clip] += score.parsed

    def each(value: Callable[[dict[str, Any]], int]) -> np.ndarray:
        return np.array([sum(value(answer) for answer in clip) for clip in answers], float)

    def kind(kind: Kind) -> np.ndarray:
        return each(lambda answer: answer["kinds"].get(kind.name.lower(), 0))

    return Counts(
        right=right,
        facts=facts,
        accepted=kind(Kind.MATCH) + kind(Kind.LOOSE) + kind(Kind.SHIFT),
        host_accepted=each(itemgetter("accepted")),
        rounds=each(itemgetter("rounds")),
        tokens=each(itemgetter("tokens")),
        ran_on=each(itemgetter("ran_on")),
        answers=each(lambda answer: 1),
        parsed=parsed,
        kinds={name.name.lower(): int(kind(name).sum()) for name in Kind},
    )


def figures(counts: Counts, alone: Counts, strict: Counts, draws: np.ndarray) -> dict[str, Any]:
    """A rule's figures against the target alone on the same clips.

    ``kept`` is the share of the target's accuracy; ``kept_within_noise`` says whether it differs
    from 1 by less than the noise. ``T`` is the drafted tokens a round that stand in the answer,
    without the bonus; ``T_host`` counts also those accepted after the answer's end.
    """
    kept = kept_samples(counts, alone, draws)
    row: dict[str, Any] = {
        "accuracy": _share(counts.all_right, counts.all_facts),
        "kept": _kept(counts.all_right, counts.all_facts, alone.all_right, alone.all_facts),
        "kept_ci95": interval(kept),
        "kept_within_noise": not differs(kept, np.ones_like(kept)),
        "T": None,
        "T_host": None,
        "T_ci95": interval(ratios(draws, counts.accepted, counts.rounds)),
        "rounds": int(counts.rounds.sum()),
        "clips": len(counts.rounds),
        "facts": int(counts.all_facts.sum()),
        "ran_on": int(counts.ran_on.sum()),
        "parse_rate": _share(counts.parsed, counts.answers),
        "tokens": int(counts.tokens.sum()),
        "kinds": counts.kinds,
    }
    if counts.rounds.any():
        row["T"] = _share(counts.accepted, counts.rounds)
        row["T_host"] = _share(counts.host_accepted, counts.rounds)
        row["T_to_strict"] = row["T"] / _share(strict.accepted, strict.rounds)
    for part in [part for part in PARTS if counts.facts[part].any()]:
        samples = ratios(draws, counts.right[part], counts.facts[part])
        samples -= ratios(draws, alone.right[part], alone.facts[part])
        row[part] = {
            "accuracy": _share(counts.right[part], counts.facts[part]),
            "facts": int(counts.facts[part].sum()),
            "minus_alone": _share(counts.right[part], counts.facts[part])
            - _share(alone.right[part], alone.facts[part]),
            "minus_alone_ci95": interval(samples),
        }
    return row


def kept_samples(counts: Counts, alone: Counts, draws: np.ndarray) -> np.ndarray:
    """Resampled ``kept``, ``[RESAMPLES]``; paired, so two rules' may be compared one by one."""
    own = ratios(draws, counts.all_right, counts.all_facts)
    return np.asarray(own / ratios(draws, alone.all_right, alone.all_facts))


def _share(above: np.ndarray, below: np.ndarray) -> float:
    return float(above.sum() / below.sum())


def _kept(
    right: np.ndarray, facts: np.ndarray, alone_right: np.ndarray, alone_facts: np.ndarray
) -> float:
    return _share(right, facts) / _share(alone_right, alone_facts)
