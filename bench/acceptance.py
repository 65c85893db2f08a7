"""Accepted drafts a round under pruning, and of the target drafting for itself; mini pair."""

import argparse
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lvspec_sglang.bench.conversations import CAPTION_TOKENS, chat, write_clips
from lvspec_sglang.bench.prefix_servers import lvspec
from lvspec_sglang.miniworld import paths
from lvspec_sglang.serving import LocalServer, together

SHARES = (0.1, 0.25, 0.5, 0.05)
GUIDES = ("uniform", "verifier", "unbiased")


def acceptance(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Accepted drafts a round of captions, by pruner and share, strict and relaxed; mini pair.

    The last rows are the target drafting for itself over its own KV of the kept tokens.
    """
    target, draft = paths()
    truths = write_clips(arguments.clips, arguments.seed, 0, folder)
    configs: list[tuple[Path | None, str, float]] = [(draft, "none", 1.0)]
    configs += [(draft, name, keep) for keep in SHARES for name in GUIDES]
    configs += [(None, "verifier", keep) for keep in SHARES]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(configs), 2):
        pair = configs[start : start + 2]
        servers = [
            lvspec(target, model, {"pruning": name, "keep": keep, "keep_at_least": 1})
            for model, name, keep in pair
        ]
        with together(*servers), ThreadPoolExecutor(len(pair)) as pool:
            for row in pool.map(lambda server: _accepted(server, truths), servers):
                model, name, keep = configs[len(rows)]
                drafting = "target" if model is None else "pair"
                rows.append({"draft": drafting, "pruning": name, "keep": keep, **row})
                print(rows[-1], flush=True)
    return rows


def _accepted(server: LocalServer, truths: list[dict[str, Any]]) -> dict[str, float]:
    """Mean accepted drafts a round, without the bonus token, of each preset."""
    means = {}
    for preset in ("strict", "balanced", "paper"):
        with ThreadPoolExecutor(4) as pool:
            metas = list(pool.map(functools.partial(_caption, server, preset), truths))
        accepted = sum(meta["spec_num_correct_drafts"] for meta in metas)
        means[f"T_{preset}"] = accepted / sum(meta["spec_verify_ct"] for meta in metas)
    return {"clips": len(truths), **means}


def _caption(server: LocalServer, preset: str, truth: dict[str, Any]) -> dict[str, Any]:
    sampling = {
        "temperature": 0, "max_new_tokens": CAPTION_TOKENS,
        "custom_params": {"lvspec": {"preset": preset}},
    }  # fmt: skip
    result = server.generate(
        text=chat(truth["caption_prompt"]), video_data=[str(truth["path"])],
        sampling_params=sampling,
    )  # fmt: skip
    return dict(result["meta_info"])
