"""Which layers of the target tell facts from wording: sets of layers, ranked by what they lose.

A set scores a mismatch by its layers' mean. The mismatches of lowest score are accepted until
rounds over the target's own text are as long as wanted; the fewer facts that loses, the better.
Losses are added up one by one, as if no accepted mismatch changed what follows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lvspec_sglang.miniworld.checkpoint import load_model
from lvspec_sglang.miniworld.data import Prompter
from lvspec_sglang.miniworld.evaluate import HeldOut
from lvspec_sglang.miniworld.mismatches import FLOOR, Mismatches, collect
from lvspec_sglang.miniworld.report import markdown
from lvspec_sglang.relevance.attention import middle_third
from lvspec_sglang.relevance.measured import SCORES

CHAIN = 10
LONGER = 2.0
MOST_LAYERS = 3


@dataclass
class Row:
    """What one set of layers does at the wanted length."""

    layers: tuple[int, ...]
    accepted: int
    lost: int
    area: float | None


@dataclass
class Ranking:
    """Every layer, the best pair and triple that grow from it, and two sets for comparison.

    `strict` and `wanted` are mean accepted lengths without the bonus token.
    """

    strict: float
    wanted: float
    sets: list[Row]
    others: dict[str, Row]

    @property
    def best(self) -> Row:
        """The set that loses the fewest facts, of equals the smallest."""
        return min(self.sets, key=_order)

    def rows(self, facts: int) -> list[list[str]]:
        """The table, its head first."""
        head = ["layers", f"facts lost of {facts}", "mismatches accepted", "ROC area"]
        named = [(", ".join(map(str, row.layers)), row) for row in self.sets]
        named += [(name, row) for name, row in self.others.items()]
        return [head] + [
            [name, str(row.lost), str(row.accepted), "-" if row.area is None else f"{row.area:.3f}"]
            for name, row in named
        ]


def rank_pair(root: Path, clips: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Print the ranking for the pair in `root` on held-out clips, and return the figures."""
    started = time.monotonic()
    held_out = HeldOut.make(clips, seed)
    target, tokenizer = load_model(root / "target")
    draft, _ = load_model(root / "draft")
    found = collect(target, draft, Prompter(tokenizer), held_out, say)
    ranking = rank(found)
    harmful = int((found.lost > 0).sum())
    say(
        f"{len(found.lost)} mismatches that guards and a floor of {FLOOR} let through, {harmful}"
        f" harmful; accepted length {ranking.strict:.2f} strict, {ranking.wanted:.2f} wanted\n"
    )
    say(markdown(ranking.rows(found.facts)))
    entry = measured(found, ranking.best.layers) if harmful else None
    if entry:
        say(f"fewest facts lost: layers {entry['layers']}; for the target's config.json:")
        say(f'"lvspec": {json.dumps(entry)}')
    else:
        say("nothing to rank by: use more --clips")
    return {
        "clips": clips,
        "seed": seed,
        "floor": FLOOR,
        "chain": CHAIN,
        "texts": len(found.agreed),
        "facts": found.facts,
        "wrong_alone": found.wrong,
        "mismatches": len(found.lost),
        "harmful": harmful,
        "lvspec": entry,
        **asdict(ranking),
        "seconds": round(time.monotonic() - started),
    }


def rank(mismatches: Mismatches, longer: float = LONGER) -> Ranking:
    """Rank every layer, then the sets that grow from the best by the layer that helps most.

    The wanted length is `longer` times the strict one, or what accepting every mismatch gives
    where that is less.
    """
    count = mismatches.scores.shape[1]
    every = np.ones(len(mismatches.lost), bool)
    strict = mean_accepted(passes(mismatches, ~every))
    wanted = min(longer * strict, mean_accepted(passes(mismatches, every)))
    tried = [[judge(mismatches, (layer,), wanted) for layer in range(count)]]
    sets = list(tried[0])
    while len(tried) < min(MOST_LAYERS, count):
        grown = min(tried[-1], key=_order).layers
        rest = [layer for layer in range(count) if layer not in grown]
        tried.append([judge(mismatches, tuple(sorted((*grown, x))), wanted) for x in rest])
        sets.append(min(tried[-1], key=_order))
    others = {
        "middle third": judge(mismatches, middle_third(count), wanted),
        "all layers": judge(mismatches, tuple(range(count)), wanted),
    }
    return Ranking(strict, wanted, sets, others)


def judge(mismatches: Mismatches, layers: tuple[int, ...], wanted: float) -> Row:
    """Accept the fewest mismatches of lowest score that reach the wanted length."""
    scores = mismatches.scores[:, list(layers)].astype(np.float32).mean(1)
    order = scores.argsort(kind="stable")
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if mean_accepted(passes(mismatches, order[:middle])) < wanted:
            low = middle + 1
        else:
            high = middle
    lost = int(mismatches.lost[order[:low]].sum())
    return Row(layers, low, lost, area_under_roc(scores, mismatches.lost > 0))


def measured(mismatches: Mismatches, layers: tuple[int, ...]) -> dict[str, Any]:
    """What `relevance/measured.py` reads of a target: the layers, and quantiles of their scores."""
    scores = mismatches.drafted[:, list(layers)].astype(np.float32).mean(1)
    quantiles = np.quantile(scores, (np.arange(SCORES) + 0.5) / SCORES)
    return {"layers": list(layers), "scores": [round(float(score), 4) for score in quantiles]}


def passes(mismatches: Mismatches, accepted: np.ndarray) -> list[np.ndarray]:
    """Which tokens of each text pass verification, given which mismatches are accepted."""
    passed = [agreed.copy() for agreed in mismatches.agreed]
    pairs = zip(mismatches.text[accepted], mismatches.place[accepted], strict=True)
    for text, place in pairs:
        passed[text][place] = True
    return passed


def mean_accepted(passed: list[np.ndarray], chain: int = CHAIN) -> float:
    """Drafted tokens a round, without the bonus, over texts bool [tokens] each.

    The first token comes from prefill. A round accepts up to `chain` tokens that pass and commits
    one more of the target's; the last one of a text may be cut short.
    """
    accepted = rounds = 0
    for text in passed:
        stops = [*np.flatnonzero(~text).tolist(), len(text)]
        place, number = 1, 0
        while place < len(text):
            while stops[number] < place:
                number += 1
            run = min(chain, stops[number] - place)
            accepted += run
            rounds += 1
            place += run + 1
    return accepted / rounds if rounds else 0.0


def area_under_roc(scores: np.ndarray, harmful: np.ndarray) -> float | None:
    """Chance that a harmful mismatch scores above a harmless one; None without either kind."""
    harmless = np.sort(scores[~harmful])
    if not harmful.any() or not len(harmless):
        return None
    below = np.searchsorted(harmless, scores[harmful], "left")
    up_to = np.searchsorted(harmless, scores[harmful], "right")
    return float((below + up_to).mean() / 2 / len(harmless))


def _order(row: Row) -> tuple[int, int, float]:
    return row.lost, len(row.layers), -(row.area or 0.0)
