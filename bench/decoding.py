"""Requests about clips, decoded together, and what a server makes of them a second."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from lvspec_sglang.bench.conversations import write_clips
from lvspec_sglang.serving import LocalServer

PROMPT = (
    "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


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
            "text": PROMPT.format(each.question),
            "video_data": str(each.clip),
            "sampling_params": sampling,
        }
        for each in (asked[number % len(asked)] for number in range(requests))
    ]


def decode(
    server: LocalServer, payloads: Sequence[dict[str, Any]], preset: str | None = None
) -> dict[str, Any]:
    """Decode ``payloads`` at once, with LVSPEC's ``preset`` where it is one.

    Returns:
        ``tokens_per_second`` from the first token to the last, drafted tokens ``accepted`` a round
        (None without speculation), and the longest prompt's ``prompt_tokens``.
    """

    def one(payload: dict[str, Any]) -> tuple[float, float, dict[str, Any]]:
        asked = dict(payload)
        if preset:
            custom = {"custom_params": {"lvspec": {"preset": preset}}}
            asked["sampling_params"] = payload["sampling_params"] | custom
        first, meta = 0.0, {}
        for event in server.stream(**asked):
            first, meta = first or time.monotonic(), event["meta_info"]
        return first, time.monotonic(), meta

    with ThreadPoolExecutor(len(payloads)) as pool:
        answers = list(pool.map(one, payloads))
    seconds = max(end for _, end, _ in answers) - min(first for first, _, _ in answers)
    metas = [meta for _, _, meta in answers]
    rounds = sum(meta.get("spec_verify_ct") or 0 for meta in metas)
    accepted = sum(meta.get("spec_num_correct_drafts") or 0 for meta in metas)
    return {
        "tokens_per_second": sum(meta["completion_tokens"] - 1 for meta in metas) / seconds,
        "accepted": accepted / rounds if rounds else None,
        "prompt_tokens": max(meta["prompt_tokens"] for meta in metas),
    }
