"""The sets of rules that ``lvspec bench fidelity --rules`` takes, and files of rules."""

import json
from pathlib import Path

from lvspec_sglang.bench.rules import (
    BALANCED,
    DEFAULT,
    STRICT,
    Floors,
    Rule,
    baselines,
    fly,
    loose,
    presets,
)
from lvspec_sglang.config import GUARDS, PRESETS, PRUNERS, SCORERS

RATIOS = (0.5, 0.7, 0.9)
TARGET_LAYERS = 14
MEASURED_LAYERS = [8, 12]
PRESET = {"preset": "balanced"}


def main() -> list[Rule]:
    """The presets, FLy, and the default's and the control's curves, bare and at the floors."""
    return [
        *presets(),
        *fly(),
        *loose(DEFAULT, RATIOS),
        *loose(DEFAULT, (0.5, 0.7, 0.95), BALANCED),
        *loose("random", (*RATIOS, 1.0)),
        *loose("random", (0.5, 0.7, 1.0), BALANCED),
    ]


def scorers() -> list[Rule]:
    """The other scorers' curves, bare, at the floors and with the paper's shifts.

    ``cosine paper`` is the paper's rule with the paper's scorer.
    """
    return [
        rule
        for scorer in SCORERS
        if scorer not in (DEFAULT, "random")
        for rule in (
            *loose(scorer, RATIOS),
            *loose(scorer, (0.9,), BALANCED),
            Rule(f"{scorer} paper", "paper by scorer", {"relevance": scorer}, {"preset": "paper"}),
        )
    ]


def floors() -> list[Rule]:
    """``balanced`` with other plausibility floors: level ones, and others that rise."""
    ratio = PRESETS["balanced"].loose_ratio
    pairs = ((0.001, 0.0), (0.003, 0.0), (0.01, 0.0), (0.0003, 0.01), (0.0007, 0.1))
    return [rule for pair in pairs for rule in loose(DEFAULT, (ratio,), Floors(*pair))]


def shifts() -> list[Rule]:
    """Position shift: each side alone, bare and beside a loose ratio, then both by window.

    Both sides by 3 at this ratio are the preset ``paper``.
    """
    sides = {
        "draft": ["draft_shift"],
        "target": ["target_shift"],
        "both": ["draft_shift", "target_shift"],
    }
    cases = [(side, ratio, 3) for side in ("draft", "target") for ratio in (0.0, 0.7)]
    cases += [("both", 0.7, window) for window in (1, 2, 4, 5)]
    return [
        Rule(
            f"{DEFAULT} {ratio} shift {side} {window}",
            f"{DEFAULT} {ratio} shift {side}",
            {},
            {"loose_ratio": ratio, **dict.fromkeys(sides[side], window)},
        )
        for side, ratio, window in cases
    ]


def queries() -> list[Rule]:
    """Scored at the query that consumes a token, where the curves' predicts it."""
    return [
        Rule(
            f"{relevance} 0.7 consuming",
            f"{relevance} consuming",
            {"relevance": relevance, "query": "consuming"},
            {"loose_ratio": 0.7},
        )
        for relevance in (DEFAULT, "cosine")
    ]


def layers() -> list[Rule]:
    """``balanced`` by other layers than the measured ones: thirds; and by those, unmeasured."""
    third = TARGET_LAYERS // 3
    choices = [list(range(start, start + third + 1)) for start in (0, third, 2 * third)]
    choices.append(MEASURED_LAYERS)
    return [
        Rule(
            f"balanced layers {','.join(map(str, chosen))}",
            "balanced by layers",
            {"layers": chosen},
            PRESET,
        )
        for chosen in choices
    ]


def guards() -> list[Rule]:
    """A loose ratio without floor and without never-loose sets: none, and each left out."""
    choices = {"none": (), **{f"no {out}": tuple(g for g in GUARDS if g != out) for out in GUARDS}}
    return [
        Rule(
            f"{DEFAULT} 0.9 guards {name}",
            f"{DEFAULT} 0.9 by guards",
            {"guards": list(kept)},
            {"loose_ratio": 0.9},
        )
        for name, kept in choices.items()
    ]


def pruned() -> list[Rule]:
    """``balanced`` by how the draft's video tokens are pruned, short videos too."""
    cases = [(STRICT, "verifier"), *(("balanced", name) for name in PRUNERS if name != "none")]
    return [
        Rule(
            f"{preset} pruning {pruning}",
            f"{preset} by pruning",
            {"pruning": pruning, "keep_at_least": 0},
            {"preset": preset},
        )
        for preset, pruning in cases
    ]


def named_sets() -> dict[str, list[Rule]]:
    """Every set that ``--rules`` takes; each run measures the baselines too."""
    sets = {
        "main": main(),
        "presets": [*presets(), *fly()[:1]],
        "relevance": scorers(),
        "floors": floors(),
        "shift": shifts(),
        "query": queries(),
        "layers": layers(),
        "guards": guards(),
        "pruning": pruned(),
    }
    sets["all"] = [rule for rules in sets.values() for rule in rules]
    return sets


def chosen(names: str) -> list[Rule]:
    """The baselines and the rules of ``names``: sets, or files of rules, separated by commas.

    A file holds a JSON list of ``{"name", "family", "server", "request"}``; ``family`` may be
    left out.

    Raises:
        ValueError: an unknown set, a broken file, a setting the package does not know, or two
            rules of one name.
    """
    sets = named_sets()
    rules = baselines()
    for name in names.split(","):
        if name in sets:
            rules += sets[name]
        elif Path(name).is_file():
            rules += _read(Path(name))
        else:
            raise ValueError(f"--rules {name!r}: a JSON file, or one of {', '.join(sets)}")
    unique = {rule.name: rule for rule in rules}
    for rule in rules:
        if rule.meaning() != unique[rule.name].meaning():
            raise ValueError(f"two rules are called {rule.name!r}: rename one")
    return list(unique.values())


def _read(path: Path) -> list[Rule]:
    try:
        entries = json.loads(path.read_text())
        if not isinstance(entries, list) or not entries:
            raise TypeError("no list of rules")
        return [
            Rule(
                entry["name"],
                entry.get("family", entry["name"]),
                entry.get("server", {}),
                entry.get("request", {}),
            )
            for entry in entries
        ]
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: write a JSON list of "
            f"""{{"name": "...", "server": {{...}}, "request": {{...}}}} ({error!r})"""
        ) from error
