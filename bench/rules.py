"""The rules that ``lvspec bench fidelity`` compares, by name and by set."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lvspec_sglang.config import (
    GUARDS,
    PRESETS,
    PRUNERS,
    SCORERS,
    LVSpecConfig,
    RelaxConfig,
)
from lvspec_sglang.config_json import parse_request, parse_server

RATIOS = (0.5, 0.7, 0.9)
TARGET_LAYERS = 14
MEASURED_LAYERS = [8, 12]
DEFAULT = LVSpecConfig().relevance
BALANCED = {"preset": "balanced"}
FLOOR = PRESETS["balanced"].floor
ALONE = "alone"
STRICT = "strict"


@dataclass(frozen=True)
class Rule:
    """A way to verify.

    Attributes:
        name: unique in a run.
        family: the curve of the plot it lies on.
        server: the server's JSON; None for the target alone, without LVSPEC.
        request: the request's JSON.
    """

    name: str
    family: str
    server: dict[str, Any] | None
    request: dict[str, Any]

    def meaning(self) -> dict[str, Any] | None:
        """Every setting the rule amounts to, presets spelt out; None for the target alone.

        Raises:
            ValueError: a setting the package does not know.
        """
        if self.server is None:
            return None
        config = parse_server(json.dumps(self.server))
        meaning = asdict(config) | {
            "relax": asdict(parse_request(self.request, config.relax or RelaxConfig()).relax)
        }
        return dict(json.loads(json.dumps(meaning)))

    @property
    def strict(self) -> bool:
        """Whether its answers must be the target's own, token for token."""
        meaning = self.meaning()
        return meaning is not None and RelaxConfig(**meaning["relax"]).strict


def baselines() -> list[Rule]:
    """What every run measures: the target alone, and strict verification."""
    return [Rule(ALONE, ALONE, None, {}), Rule(STRICT, STRICT, {}, {"preset": STRICT})]


def presets() -> list[Rule]:
    return [
        Rule(name, f"preset {name}", {}, {"preset": name}) for name in PRESETS if name != STRICT
    ]


def fly() -> list[Rule]:
    """FLy as published, then less careful: a shorter window, a lower bar for uncertainty."""
    rules = [Rule("fly", "fly", {}, {"rule": "fly"})]
    for entropy, window in ((0.3, 3), (0.1, 6), (0.1, 3)):
        request = {"rule": "fly", "fly_entropy_threshold": entropy, "fly_window_size": window}
        rules.append(Rule(f"fly {entropy} window {window}", "fly", {}, request))
    return rules


def loose(relevance: str, ratios: Iterable[float], floor: float = 0.0) -> list[Rule]:
    """Loose acceptance by a scorer: a curve of ratios at a plausibility floor."""
    family = curve_name(relevance, floor)
    return [
        Rule(
            f"{family} {ratio}",
            family,
            {"relevance": relevance},
            {"loose_ratio": ratio, "floor": floor},
        )
        for ratio in ratios
    ]


def curve_name(relevance: str, floor: float) -> str:
    """The family of a scorer's curve at a plausibility floor."""
    return relevance + f" floor {floor}" * bool(floor)


def main() -> list[Rule]:
    """The presets, FLy, and the default's and the control's curves, bare and at the floor."""
    return [
        *presets(),
        *fly(),
        *loose(DEFAULT, RATIOS),
        *loose(DEFAULT, (0.5, 0.7, 0.95), FLOOR),
        *loose("random", (*RATIOS, 1.0)),
        *loose("random", (0.5, 0.7, 1.0), FLOOR),
    ]


def scorers() -> list[Rule]:
    """The other scorers' curves, bare, at the floor and with the paper's shifts.

    ``cosine paper`` is the paper's rule with the paper's scorer.
    """
    return [
        rule
        for scorer in SCORERS
        if scorer not in (DEFAULT, "random")
        for rule in (
            *loose(scorer, RATIOS),
            *loose(scorer, (0.9,), FLOOR),
            Rule(f"{scorer} paper", "paper by scorer", {"relevance": scorer}, {"preset": "paper"}),
        )
    ]


def floors() -> list[Rule]:
    """``balanced`` with other plausibility floors."""
    return [
        Rule(f"balanced floor {floor}", "balanced by floor", {}, BALANCED | {"floor": floor})
        for floor in (0.001, 0.01, 0.03)
    ]


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
            BALANCED,
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
