"""``lvspec demo``: two servers, one question about a video, one follow-up, side by side."""

import contextlib
import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.serving import LocalServer

QUESTIONS = ("What happens in this video?", "And what happens then?")
CLIP_SEED = 11


class Stage(NamedTuple):
    """What is served and asked."""

    target: Path
    draft: Path
    clip: Path
    questions: tuple[str, str]


class Turn(NamedTuple):
    """One answered question: its text, its time and what the server says of it."""

    text: str
    seconds: float
    meta: dict[str, Any]


def run(max_new_tokens: int, video: Path | None) -> int:
    """Start a server with LVSPEC and one without, ask both, print the comparison; return 0."""
    with tempfile.TemporaryDirectory(prefix="lvspec-demo-") as folder:
        stage = _set_stage(Path(folder), video)
        common = ("--dtype", "float32", "--random-seed", "1")
        speculating = (
            "--speculative-algorithm", "LVSPEC",
            "--speculative-draft-model-path", str(stage.draft),
        )  # fmt: skip
        servers = (
            ("LVSPEC", LocalServer(stage.target, *common, *speculating)),
            ("target alone", LocalServer(stage.target, *common)),
        )
        with contextlib.ExitStack() as stack:
            for _, server in servers:
                stack.callback(server.stop)
                server.start()
            _await(servers)
            _warm_up(servers, stage)
            turns = _converse(servers, stage, max_new_tokens)
        _report(turns)
    return 0


def _set_stage(folder: Path, video: Path | None) -> Stage:
    """The mini world's pair and a clip it never saw; ``video`` takes the clip's place."""
    from lvspec_sglang.miniworld import paths
    from lvspec_sglang.miniworld.clips import write_clip as write_scene
    from lvspec_sglang.miniworld.scene import HELD_OUT

    target, draft = paths()
    if video is not None:
        return Stage(target, draft, video, QUESTIONS)
    truth = write_scene(HELD_OUT + CLIP_SEED, folder)
    asked = (truth["caption_prompt"], truth["questions"][0]["question"])
    print(f"The clip's facts: {truth['facts']}")
    return Stage(target, draft, folder / truth["video"], asked)


def _await(servers: tuple[tuple[str, LocalServer], ...]) -> None:
    for name, server in servers:
        server.wait_ready(progress=functools.partial(_progress, name))
        print(f"\r{name}: ready{' ' * 30}")


def _progress(name: str, waited: float) -> None:
    print(f"\r{name}: starting, {waited:.0f} s", end="", flush=True)


def _warm_up(servers: tuple[tuple[str, LocalServer], ...], stage: Stage) -> None:
    print("Warming up (the first picture compiles the vision tower) ...")
    with tempfile.TemporaryDirectory() as folder:
        other = write_clip(Path(folder) / "warm.mp4", moving_square(32, seed=1))
        for _, server in servers:
            _ask(server, _prompt(stage.target, stage.questions[:1], []), other, 16)


def _converse(
    servers: tuple[tuple[str, LocalServer], ...], stage: Stage, max_new_tokens: int
) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {name: [] for name, _ in servers}
    for number, question in enumerate(stage.questions):
        print(f"\nTurn {number + 1}: {question}")
        for name, server in servers:
            answers = [turn.text for turn in turns[name]]
            prompt = _prompt(stage.target, stage.questions[: number + 1], answers)
            turns[name].append(_ask(server, prompt, stage.clip, max_new_tokens, echo=name))
    return turns


def _prompt(target: Path, questions: Sequence[str], answers: list[str]) -> str:
    from transformers import AutoTokenizer

    messages: list[dict[str, Any]] = []
    for number, question in enumerate(questions):
        video = [{"type": "video"}] if number == 0 else []
        messages.append({"role": "user", "content": [*video, {"type": "text", "text": question}]})
        if number < len(answers):
            messages.append({"role": "assistant", "content": answers[number]})
    tokenizer = AutoTokenizer.from_pretrained(target)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _ask(
    server: LocalServer, prompt: str, clip: Path, max_new_tokens: int, echo: str | None = None
) -> Turn:
    text, first, meta = "", 0.0, {}
    if echo is not None:
        print(f"  {echo}: ", end="", flush=True)
    sampling = {"temperature": 0, "max_new_tokens": max_new_tokens}
    for event in server.stream(text=prompt, video_data=str(clip), sampling_params=sampling):
        first = first or time.monotonic()
        if echo is not None:
            print(event["text"][len(text) :], end="", flush=True)
        text, meta = event["text"], event["meta_info"]
    if echo is not None:
        print()
    return Turn(text, time.monotonic() - first, meta)


def _report(turns: dict[str, list[Turn]]) -> None:
    print(f"\n{'':14} turn  decode s  tokens  target forwards/token  accepted length  cached")
    for name, answered in turns.items():
        for number, turn in enumerate(answered, 1):
            print(f"{name:14} {number:4}  {turn.seconds:8.2f}  {_figures(turn.meta)}")
    alone, lvspec = (
        sum(turn.seconds for turn in turns[name]) for name in ("target alone", "LVSPEC")
    )
    same = [a.text == b.text for a, b in zip(*turns.values(), strict=True)]
    print(f"\nDecoding: {lvspec:.2f} s with LVSPEC, {alone:.2f} s without: {alone / lvspec:.2f}x")
    print("Answers are identical." if all(same) else "ANSWERS DIFFER: please report this.")


def _figures(meta: dict[str, Any]) -> str:
    tokens = meta["completion_tokens"]
    forwards = meta.get("spec_verify_ct") or tokens - 1
    accepted = f"{meta['spec_accept_length']:15.2f}" if "spec_accept_length" in meta else " " * 15
    return f"{tokens:6}  {forwards / tokens:21.2f}  {accepted}  {meta['cached_tokens']:6}"
