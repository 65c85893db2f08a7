"""Conversations about held-out clips with a real server: a caption, then follow-up questions."""

import hashlib
import json
import random
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lvspec_sglang.miniworld.clips import truth_of
from lvspec_sglang.miniworld.render import write_mp4
from lvspec_sglang.miniworld.scene import HELD_OUT, Scene, make_scene
from lvspec_sglang.miniworld.tokenizer import SYSTEM
from lvspec_sglang.serving import LocalServer

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
CAPTION_TOKENS = 256
ANSWER_TOKENS = 64
GROUPS = ("negation", "order", "other")
ORDER_KINDS = ("order", "event")
CONCURRENT = 32
KV_TOKENS = 40_960
# The host's vision tower attends across all clips of a prefill batch before it masks.
PREFILLS = 2


def held_out_clips(
    count: int, seed: int, questions: int, folder: Path, writer: Executor
) -> list[dict[str, Any]]:
    """The truth of ``count`` held-out clips from ``seed`` on, with what is ``asked`` of each.

    ``writer`` writes the files while servers start; ``path`` is the future of one.
    """
    truths = []
    for number in range(seed, seed + count):
        scene = make_scene(HELD_OUT + number)
        truth = truth_of(scene, f"held_{number}.mp4")
        path = folder / truth["video"]
        file = writer.submit(_write, scene, path)
        truths.append(truth | {"asked": choose_questions(truth, questions), "path": file})
    return truths


def write_clips(count: int, seed: int, questions: int, folder: Path) -> list[dict[str, Any]]:
    """The same with the files written, ``path`` the path of one."""
    with ThreadPoolExecutor(1) as writer:
        truths = held_out_clips(count, seed, questions, folder, writer)
    return [truth | {"path": truth["path"].result()} for truth in truths]


def _write(scene: Scene, path: Path) -> Path:
    write_mp4(scene, path)
    return path


def choose_questions(truth: dict[str, Any], most: int = len(GROUPS)) -> list[dict[str, str]]:
    """At most a question a group, those of the first groups, always the same ones."""
    rng = random.Random(truth["seed"])
    groups: dict[str, list[dict[str, str]]] = {group: [] for group in GROUPS}
    for question in truth["questions"]:
        groups[group_of(question)].append(question)
    return [rng.choice(group) for group in groups.values() if group][:most]


def group_of(question: dict[str, str]) -> str:
    """``order``, ``negation`` (its question or its answer denies something) or ``other``."""
    if question["kind"] in ORDER_KINDS:
        return "order"
    denied = question["value"] == "none" or " no " in question["question"]
    return "negation" if denied else "other"


def chat(*turns: str) -> str:
    """User and assistant turns, alternating, as the pair's chat template writes them.

    The first has the video.
    """
    text = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    for number, turn in enumerate(turns):
        role = "assistant" if number % 2 else "user"
        text += f"<|im_start|>{role}\n{'' if number else VIDEO}{turn}<|im_end|>\n"
    return text + "<|im_start|>assistant\n"


def converse(
    server: LocalServer, truth: dict[str, Any], request: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Ask for the caption, then each question as a second turn on it; an answer each.

    Args:
        request: what a request says to LVSPEC; None where the server runs without it.
    """
    prompt = truth["caption_prompt"]
    caption = _answer(server, truth, request, CAPTION_TOKENS, prompt)
    later = [
        _answer(server, truth, request, ANSWER_TOKENS, prompt, caption["text"], asked["question"])
        for asked in truth["asked"]
    ]
    return [caption, *later]


def _answer(
    server: LocalServer,
    truth: dict[str, Any],
    request: dict[str, Any] | None,
    tokens: int,
    *turns: str,
) -> dict[str, Any]:
    sampling: dict[str, Any] = {"temperature": 0, "max_new_tokens": tokens}
    if request is not None:
        sampling["custom_params"] = {"lvspec": request}
    result = server.generate(
        text=chat(*turns), video_data=[str(truth["path"].result())], sampling_params=sampling
    )
    meta = result["meta_info"]
    return {
        "text": result["text"],
        "ids": hashlib.sha1(json.dumps(result["output_ids"]).encode()).hexdigest()[:12],
        "tokens": meta["completion_tokens"],
        "ran_on": meta["finish_reason"]["type"] != "stop",
        "rounds": meta.get("spec_verify_ct", 0),
        "accepted": meta.get("spec_num_correct_drafts", 0),
        "kinds": meta.get("lvspec", {}),
    }


def run_all(
    server: LocalServer,
    jobs: Iterable[tuple[str, dict[str, Any] | None, dict[str, Any]]],
    done: Callable[[str, dict[str, Any], list[dict[str, Any]]], None],
) -> None:
    """Hold the conversations ``(rule, request, truth)``; tell ``done`` of each as it ends.

    Raises:
        Refused: the server refused a request; the rest is given up.
    """

    def job(work: tuple[str, dict[str, Any] | None, dict[str, Any]]) -> Any:
        rule, request, truth = work
        return rule, truth, converse(server, truth, request)

    pool = ThreadPoolExecutor(CONCURRENT)
    try:
        for rule, truth, answers in pool.map(job, jobs):
            done(rule, truth, answers)
    finally:
        pool.shutdown(cancel_futures=True)
