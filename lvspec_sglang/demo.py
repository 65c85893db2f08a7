"""``lvspec demo``: a question about a video and a follow-up, with LVSPEC and without."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.connect import wait_ready
from lvspec_sglang.serving import LocalServer, dtype, together

QUESTIONS = ("What happens in this video?", "And what happens then?")
CLIP_SEED = 11
ALONE, STRICT = "target alone", "LVSPEC strict"
PRESETS_SHOWN = ((STRICT, "strict"), ("LVSPEC balanced", "balanced"))


class Stage(NamedTuple):
    """What is served and asked."""

    target: Path
    draft: Path
    clip: Path
    questions: tuple[str, str]


class Way(NamedTuple):
    """One way to decode: which server, and the preset its requests ask for."""

    name: str
    server: LocalServer
    preset: str | None

    def sampling(self, max_new_tokens: int) -> dict[str, Any]:
        """Greedy sampling parameters."""
        asked = {"custom_params": {"lvspec": {"preset": self.preset}}} if self.preset else {}
        return {"temperature": 0, "max_new_tokens": max_new_tokens, **asked}


class Turn(NamedTuple):
    """One answered question: its text, its time and what the server says of it."""

    text: str
    seconds: float
    meta: dict[str, Any]


def run(max_new_tokens: int, video: Path | None) -> int:
    """Start a server with LVSPEC and one without, ask both, print the comparison; return 0."""
    with tempfile.TemporaryDirectory(prefix="lvspec-demo-") as folder:
        stage = _set_stage(Path(folder), video)
        common = (*dtype(), "--random-seed", "1")
        speculating = (
            "--speculative-algorithm", "LVSPEC",
            "--speculative-draft-model-path", str(stage.draft),
        )  # fmt: skip
        alone = LocalServer(stage.target, *common)
        lvspec = LocalServer(stage.target, *common, *speculating)
        ways = (Way(ALONE, alone, None), *(Way(name, lvspec, p) for name, p in PRESETS_SHOWN))

        def wait(server: LocalServer) -> None:
            wait_ready("LVSPEC" if server is lvspec else ALONE, server)

        with together(lvspec, alone, wait=wait):
            _warm_up(ways, stage)
            turns = _converse(ways, stage, max_new_tokens)
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


def _warm_up(ways: Sequence[Way], stage: Stage) -> None:
    print("Warming up (the first picture compiles the vision tower) ...")
    with tempfile.TemporaryDirectory() as folder:
        other = write_clip(Path(folder) / "warm.mp4", moving_square(32, seed=1))
        for way in ways:
            _ask(way, _prompt(stage.target, stage.questions[:1], []), other, 16, show=False)


def _converse(ways: Sequence[Way], stage: Stage, max_new_tokens: int) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {way.name: [] for way in ways}
    for number, question in enumerate(stage.questions):
        print(f"\nTurn {number + 1}: {question}")
        for way in ways:
            answers = [turn.text for turn in turns[way.name]]
            prompt = _prompt(stage.target, stage.questions[: number + 1], answers)
            turns[way.name].append(_ask(way, prompt, stage.clip, max_new_tokens, show=True))
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


def _ask(way: Way, prompt: str, clip: Path, max_new_tokens: int, show: bool) -> Turn:
    text, first, meta = "", 0.0, {}
    if show:
        print(f"  {way.name}: ", end="", flush=True)
    sampling = way.sampling(max_new_tokens)
    for event in way.server.stream(text=prompt, video_data=str(clip), sampling_params=sampling):
        first = first or time.monotonic()
        if show:
            print(event["text"][len(text) :], end="", flush=True)
        text, meta = event["text"], event["meta_info"]
    if show:
        print()
    return Turn(text, time.monotonic() - first, meta)


def _report(turns: dict[str, list[Turn]]) -> None:
    print(f"\n{'':16} turn  decode s  tokens  target forwards/token  accepted length  cached")
    for name, answered in turns.items():
        for number, turn in enumerate(answered, 1):
            print(f"{name:16} {number:4}  {turn.seconds:8.2f}  {_figures(turn.meta)}")
    pace = {
        name: sum(turn.meta["completion_tokens"] - 1 for turn in answered)
        / sum(turn.seconds for turn in answered)
        for name, answered in turns.items()
    }
    print()
    for name, tokens in pace.items():
        times = f"{tokens / pace[ALONE]:.2f}x" if pace[ALONE] else "no more than a token each"
        print(f"{name:16} {tokens:6.0f} tokens/s decoding, {times}")
    alone, strict = ([turn.text for turn in turns[name]] for name in (ALONE, STRICT))
    differ = "DIFFERENT: please report this, unless this is bfloat16 and they part at a near tie"
    same = "identical" if alone == strict else differ
    print(f"\nStrict answers and the target's own are {same}.")


def _figures(meta: dict[str, Any]) -> str:
    tokens = meta["completion_tokens"]
    forwards = meta.get("spec_verify_ct") or tokens - 1
    accepted = f"{meta['spec_accept_length']:15.2f}" if "spec_accept_length" in meta else " " * 15
    return f"{tokens:6}  {forwards / tokens:21.2f}  {accepted}  {meta['cached_tokens']:6}"
