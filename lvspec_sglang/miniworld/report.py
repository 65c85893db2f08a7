"""The evaluation of a pair: every figure that the model card gives, with its table."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lvspec_sglang.miniworld.agreement import measure
from lvspec_sglang.miniworld.checkpoint import load_model
from lvspec_sglang.miniworld.data import Prompter
from lvspec_sglang.miniworld.decode import video_tokens
from lvspec_sglang.miniworld.evaluate import HeldOut, answer_all, by_kind, video_table
from lvspec_sglang.miniworld.score import score_answers


def evaluate_pair(
    root: Path, held_out: HeldOut, device: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Print the tables for the pair in `root` on held-out clips, and return the figures.

    Matrix products are in bf16, as a server runs the checkpoints.
    """
    with torch.autocast(device.split(":")[0], torch.bfloat16):
        return _evaluate_pair(root, held_out, device, say)


def _evaluate_pair(
    root: Path, held_out: HeldOut, device: str, say: Callable[[str], None]
) -> dict[str, Any]:
    started = time.monotonic()
    held_out.pixels = held_out.pixels.to(device)
    say(f"{len(held_out.truth)} held-out clips, through H.264 files and back")
    figures: dict[str, Any] = {"clips": len(held_out.truth), "seed": held_out.truth[0]["seed"]}
    models = {name: load_model(root / name, device) for name in ("target", "draft")}
    prompter = Prompter(models["target"][1])
    captions: list[list[int]] = []
    table = [["", "accuracy", "captions", "questions", "follow-ups", "parse rate", "facts"]]
    for name, (model, _) in models.items():
        answers = answer_all(model, prompter, held_out)
        later = answer_all(model, prompter, held_out, follow_up=True)
        scores = score_answers(held_out.truth, answers)
        scores["follow-ups"] = score_answers(held_out.truth, later)["questions"]
        parts = [f"{scores[part].accuracy:.2%}" for part in table[0][2:5]]
        total = scores["all"]
        table.append(
            [name, f"{total.accuracy:.2%}", *parts, f"{total.parse_rate:.2%}", str(total.facts)]
        )
        figures[name] = {
            part: {"accuracy": score.accuracy, "parse_rate": score.parse_rate, "facts": score.facts}
            for part, score in scores.items()
        }
        figures[name]["kinds"] = by_kind(total)
        if name == "target":
            captions = [
                prompter.encode(answer["text"]) for answer in answers if answer["question"] is None
            ]
    say(markdown(table))
    draft = models["draft"][0]
    prompts = [prompter.prompt(line["caption_prompt"]) for line in held_out.truth]
    agreement = measure(draft, prompter, video_tokens(draft, held_out.pixels), prompts, captions)
    say(markdown([["captions of the pair, strict", ""], *agreement.rows()]))
    figures["agreement"] = {
        "mean_accepted": agreement.mean_accepted,
        "rounds": agreement.rounds,
        "kinds": dict(agreement.kinds),
        "shifted": dict(agreement.shifted),
        "contradictions": agreement.contradictions,
    }
    rows = video_table(models["target"][0], prompter, held_out)
    say(markdown(rows))
    figures["video"] = rows
    figures["seconds"] = round(time.monotonic() - started)
    return figures


def markdown(rows: list[list[str]]) -> str:
    """A table, its first row the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join(
        [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:], ""]
    )
