"""What a video costs: the draft's prefill, acceptance under pruning, turns, users, traffic."""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from lvspec_sglang import tiny
from lvspec_sglang.bench.acceptance import acceptance
from lvspec_sglang.bench.conversations import VIDEO, chat, write_clips
from lvspec_sglang.bench.prefix_servers import alone, lvspec
from lvspec_sglang.bench.traffic import Traffic
from lvspec_sglang.clips import moving_square, write_clip
from lvspec_sglang.miniworld import paths
from lvspec_sglang.record import new_record, write_record
from lvspec_sglang.serving import LocalServer, dtype, together

LENGTHS = (256, 1024, 4096, 16384)
# On a CPU the host's vision tower takes 20 GB and more for 16,384 tokens.
LENGTHS_ON_CPU = LENGTHS[:3]
TOKENS_PER_FRAME = 32  # of a 224 x 224 clip: 64 a pair of frames
ROUNDS = 32
USERS = 8
PREFILLED, ENCODED = "lvspec_draft_prefill_tokens_total", "lvspec_draft_encodes_total"


def run(arguments: argparse.Namespace) -> None:
    """Run the parts asked for, print a table each, write the record.

    Raises:
        ValueError: an unknown part.
    """
    parts = arguments.parts.split(",")
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"--parts {part!r}: of {', '.join(PARTS)}")
    record = new_record("prefix")
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="lvspec-prefix-") as folder:
            record[part] = PARTS[part](arguments, Path(folder))
        print(f"\n{part}")
        _table(record[part])
        if arguments.json is not None:
            write_record(arguments.json, record)


def ask(
    server: LocalServer, clip: Path, tokens: int, *turns: str, before: str = "", **sampling: Any
) -> dict[str, Any]:
    """Stream a greedy answer about ``clip``, with text ``before`` the video.

    Returns its ``meta`` and ``text``, the seconds to the ``first`` token and the ``gaps`` after.
    """
    prompt = chat(*turns).replace(VIDEO, before + VIDEO, 1)
    sampling |= {"temperature": 0, "max_new_tokens": tokens}
    began, events, times = time.monotonic(), [], []
    for event in server.stream(text=prompt, video_data=[str(clip)], sampling_params=sampling):
        events.append(event)
        times.append(time.monotonic())
    gaps = [late - early for early, late in pairwise(times)]
    last = events[-1]
    return {
        "meta": last["meta_info"],
        "text": last["text"],
        "first": times[0] - began,
        "gaps": gaps,
    }


def prefill(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The draft's prefill by video length, whole and pruned, on random tiny checkpoints.

    The draft's context is built before its first round; what that round takes beyond the median
    one is its cost: with the vision tower for a new video, without it where other text before the
    video makes the cached prefix useless while the draft's features are still there.
    """
    target = tiny.write_qwen2_5_vl(folder / "target", tiny.TARGET, seed=1)
    draft = tiny.write_qwen2_5_vl(folder / "draft", tiny.DRAFT, seed=3)
    rows = []
    configs: list[dict[str, Any]] = [
        {"pruning": "none"}, {"pruning": "uniform", "keep": 0.1, "keep_at_least": 1},
    ]  # fmt: skip
    for config in configs:
        server = lvspec(target, draft, config, "--max-total-tokens", "65536")
        with together(server):
            ask(server, _long_clip(folder, 8, 0), ROUNDS, "warm up", ignore_eos=True)
            for length in LENGTHS if torch.cuda.is_available() else LENGTHS_ON_CPU:
                rounds = []
                for seed in range(1, 1 + min(3, arguments.clips)):
                    clip = _long_clip(folder, length // TOKENS_PER_FRAME, seed)
                    asked = functools.partial(
                        ask, server, clip, ROUNDS, "what is it?", ignore_eos=True
                    )
                    before = server.counters()
                    new = asked()
                    after = server.counters()
                    known = asked(before="again ")
                    rounds.append(
                        {
                            "prompt": new["meta"]["prompt_tokens"],
                            "draft_tokens": after[PREFILLED] - before.get(PREFILLED, 0.0),
                            "target_first_s": known["first"],
                            "draft_with_tower_s": new["gaps"][0] - statistics.median(new["gaps"]),
                            "draft_s": known["gaps"][0] - statistics.median(known["gaps"]),
                        }
                    )
                pruning = f"{config['pruning']} {config.get('keep', 1.0):.0%}"
                rows.append({"pruning": pruning, "video_tokens": length, **_medians(rounds)})
    return rows


def turns(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Five turns on each clip with LVSPEC and without, side by side; mini pair."""
    target, draft = paths()
    servers = {"alone": alone(target), "lvspec": lvspec(target, draft, {})}
    seen: dict[tuple[str, int], list[dict[str, float]]] = {}
    with together(*servers.values()):
        warm = write_clips(1, arguments.seed + arguments.clips, 0, folder)[0]
        for server in servers.values():
            ask(server, warm["path"], 40, "warm up")
        for truth in write_clips(arguments.clips, arguments.seed, 0, folder):
            questions = [truth["caption_prompt"], *(q["question"] for q in truth["questions"][:4])]
            said: list[str] = []
            for number, question in enumerate(questions):
                said.append(question)
                answers = {}
                for name, server in servers.items():
                    before = server.counters()
                    answers[name] = ask(server, truth["path"], 64, *said)
                    spent = {k: v - before.get(k, 0.0) for k, v in server.counters().items()}
                    encodes = spent.get("lvspec_video_encodes_total", 0.0)
                    seen.setdefault((name, number + 1), []).append(
                        {
                            "cached": answers[name]["meta"]["cached_tokens"],
                            "first_s": answers[name]["first"],
                            "target_encodes": encodes - spent.get(ENCODED, 0.0),
                            "draft_encodes": spent.get(ENCODED, 0.0),
                            "draft_tokens": spent.get(PREFILLED, 0.0),
                            "frames": spent.get("lvspec_frames_decoded_total", 0.0),
                        }
                    )
                if answers["alone"]["text"] != answers["lvspec"]["text"]:
                    raise ValueError(f"the answers to {said} about {truth['path']} differ")
                said.append(answers["alone"]["text"])
    return [
        {"server": name, "turn": turn, "clips": len(found), **_medians(found)}
        for (name, turn), found in seen.items()
    ]


def users(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Eight users of one new clip at once; mini pair."""
    target, draft = paths()
    server = lvspec(target, draft, {})
    rows = []
    with together(server):
        for truth in write_clips(arguments.clips, arguments.seed, 0, folder):
            asked = [f"{number}: {truth['caption_prompt']}" for number in range(USERS)]
            before = server.counters()
            with ThreadPoolExecutor(USERS) as pool:
                metas = list(
                    pool.map(lambda text, t=truth: ask(server, t["path"], 40, text)["meta"], asked)
                )
            spent = {k: v - before.get(k, 0.0) for k, v in server.counters().items()}
            rows.append(
                {
                    "clip": truth["video"],
                    "prompt_tokens": sum(meta["prompt_tokens"] for meta in metas),
                    "target_prefilled": sum(
                        meta["prompt_tokens"] - meta["cached_tokens"] for meta in metas
                    ),
                    "target_encodes": spent.get("lvspec_video_encodes_total", 0) - spent[ENCODED],
                    "draft_prefilled": spent[PREFILLED],
                    "draft_encodes": spent[ENCODED],
                }
            )
    return rows


def traffic(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Random traffic on tiny checkpoints and a small pool; fails on a wrong answer or a leak."""
    target = tiny.write_qwen2_5_vl(folder / "target", tiny.TARGET, seed=1)
    near = tiny.write_perturbed(target, folder / "near", noise=0.02, seed=2)
    reference = alone(target)
    server = lvspec(
        target, near, {"pruning": "verifier", "keep": 0.25, "keep_at_least": 1},
        "--max-total-tokens", "3000", "--chunked-prefill-size", "128",
    )  # fmt: skip
    if dtype()[1] == "float32":  # on the CPU, which schedules without overlap
        server.env.update(LVSPEC_CHECK_DRAFT_KV="1", LVSPEC_POISON_DRAFT_KV="1")
    clips = [_long_clip(folder, 8 + 8 * number, number) for number in range(5)]
    with together(reference, server):
        load = Traffic(server, reference, clips, arguments.seed)
        load.run(arguments.traffic_seconds)
        row = {**load.counts, "leaked_tokens": load.leaked(), "wrong": len(load.wrong)}
    if row["leaked_tokens"] or row["wrong"]:
        raise ValueError(f"random traffic: {row}; first wrong answer: {load.wrong[:1]}")
    return [row]


PARTS = {
    "prefill": prefill,
    "acceptance": acceptance,
    "turns": turns,
    "users": users,
    "traffic": traffic,
}


def _long_clip(folder: Path, frames: int, seed: int) -> Path:
    path = folder / f"{frames}-{seed}.mp4"
    if not path.exists():
        write_clip(path, moving_square(frames, seed, 224, 224), fps=2)
    return path


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def _table(rows: list[dict[str, Any]]) -> None:
    keys = list(rows[0])
    cells = [
        [f"{v:.3f}" if isinstance(v := row[k], float) else str(v) for k in keys] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(keys, *cells, strict=True)]
    for line in (keys, *cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
