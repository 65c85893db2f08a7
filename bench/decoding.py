"""Requests about clips, decoded together, and what a server makes of them a second."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from lvspec_sglang.bench.conversations import chat, write_clips
from lvspec_sglang.serving import LocalServer

COUNTED = "tokens while every request of the batch decodes"

Event = tuple[float, int]  # when it came, in seconds, and the tokens answered so far


class Unmeasured(ValueError):
    """A figure that cannot be had; says why, and what to change."""


class Asked(NamedTuple):
    """A clip and what is asked about it."""

    clip: Path
    question: str


def held_out(clips: int, seed: int, folder: Path) -> list[Asked]:
    """Write ``clips`` of the mini world from ``seed`` on, their captions to be asked for."""
    truths = write_clips(clips, seed, 0, folder)
    return [Asked(truth["path"], truth["caption_prompt"]) for truth in truths]


def payloads(asked: Sequence[Asked], requests: int, tokens: int) -> list[dict[str, Any]]:
    """Greedy requests of ``tokens`` each; beyond ``asked`` the same clips again."""
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    return [
        {
            "text": chat(each.question),
            "video_data": str(each.clip),
            "sampling_params": sampling,
        }
        for each in (asked[number % len(asked)] for number in range(requests))
    ]


def with_preset(payload: dict[str, Any], preset: str | None) -> dict[str, Any]:
    """``payload`` asking for LVSPEC's ``preset``, where it is one."""
    if preset is None:
        return payload
    custom = {"custom_params": {"lvspec": {"preset": preset}}}
    return payload | {"sampling_params": payload["sampling_params"] | custom}


def kv_tokens(prompts: list[dict[str, Any]], prompt: int, own: int) -> int:
    """Tokens of KV that ``prompts`` need at once.

    Args:
        prompt: tokens of one; those about one clip share it.
        own: tokens beyond its prompt that each request needs.
    """
    return prompt * len({asked["video_data"] for asked in prompts}) + own * len(prompts)


def decode(
    server: LocalServer, payloads: Sequence[dict[str, Any]], preset: str | None = None
) -> dict[str, Any]:
    """Decode ``payloads`` at once, with LVSPEC's ``preset`` where it is one.

    Requests reach the scheduler one by one, as their videos are read. Only the time in which all
    of them decode is counted: from the moment the last one's first token comes to the moment the
    first one ends.

    Returns:
        ``tokens_per_second`` of all requests in that time, its ``seconds``, drafted tokens
        ``accepted`` a round (None without speculation), the longest prompt's ``prompt_tokens``.

    Raises:
        Unmeasured: there is no such time.
    """
    metas, answers = zip(*_answers(server, payloads, preset), strict=True)
    tokens, seconds = counted(answers)
    rounds = sum(meta.get("spec_verify_ct") or 0 for meta in metas)
    accepted = sum(meta.get("spec_num_correct_drafts") or 0 for meta in metas)
    return {
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "accepted": accepted / rounds if rounds else None,
        "prompt_tokens": max(meta["prompt_tokens"] for meta in metas),
    }


def warm_up(
    server: LocalServer, payloads: Sequence[dict[str, Any]], preset: str | None = None
) -> int:
    """Decode ``payloads`` at once, untimed; the tokens of the longest prompt."""
    return max(meta["prompt_tokens"] for meta, _ in _answers(server, payloads, preset))


def counted(answers: Sequence[Sequence[Event]]) -> tuple[float, float]:
    """Tokens of all ``answers`` while all of them decode, and the seconds that took.

    A step's events reach us one after the other. Between two events an answer is taken to grow
    evenly, so that it makes no difference which of them ends the time counted.

    Raises:
        Unmeasured: an answer ended before another began.
    """
    begin = max(events[0][0] for events in answers)
    end = min(events[-1][0] for events in answers)
    if end <= begin:
        raise Unmeasured(
            f"of {len(answers)} answers the first ended {begin - end:.2f} s before the last began; "
            "ask for longer ones with --tokens"
        )
    return sum(_by(events, end) - _last(events, begin) for events in answers), end - begin


def _answers(
    server: LocalServer, payloads: Sequence[dict[str, Any]], preset: str | None
) -> list[tuple[dict[str, Any], list[Event]]]:
    def one(payload: dict[str, Any]) -> tuple[dict[str, Any], list[Event]]:
        events, meta = [], {}
        for event in server.stream(**with_preset(payload, preset)):
            meta = event["meta_info"]
            events.append((time.monotonic(), meta["completion_tokens"]))
        return meta, events

    with ThreadPoolExecutor(len(payloads)) as pool:
        return list(pool.map(one, payloads))


def _last(events: Sequence[Event], moment: float) -> int:
    """The tokens of the last event up to ``moment``."""
    return max(tokens for when, tokens in events if when <= moment)


def _by(events: Sequence[Event], moment: float) -> float:
    """Tokens at ``moment``, even growth between events."""
    for (early, few), (late, many) in pairwise(events):
        if moment <= late:
            return few + (many - few) * (moment - early) / (late - early)
    raise AssertionError(f"{moment} is after the last event {events[-1]}")
