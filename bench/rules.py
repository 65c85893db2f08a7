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
    QUERIES,
    SCORERS,
    LVSpecConfig,
    RelaxConfig,
    parse_request,
    parse_server,
)

RATIOS = (0.3, 0.5, 0.7, 0.9)
FLOORS = (0.0, 0.001, 0.003, 0.01, 0.03)
WINDOWS = (1, 2, 3, 4, 5)
TARGET_LAYERS = 14
DEFAULT = LVSpecConfig().relevance
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
    return [Rule(ALONE, ALONE, None, {}), Rule(STRICT, STRICT, {}, {"preset": "strict"})]


def presets() -> list[Rule]:
    return [
        Rule(name, f"preset {name}", {}, {"preset": name}) for name in PRESETS if name != "strict"
    ]


def fly() -> list[Rule]:
    return [Rule("fly", "fly", {}, {"rule": "fly"})]


def loose(relevance: str, ratios: Iterable[float], floors: Iterable[float] = (0.0,)) -> list[Rule]:
    """Loose acceptance by a scorer: a curve of ratios for each plausibility floor."""
    rules = []
    for floor in floors:
        family = curve_name(relevance, floor)
        for ratio in ratios:
            request = {"loose_ratio": ratio, "floor": floor}
            rules.append(Rule(f"{family} {ratio}", family, {"relevance": relevance}, request))
    return rules


def curve_name(relevance: str, floor: float) -> str:
    """The family of a scorer's curve at a plausibility floor."""
    return relevance + f" floor {floor}" * bool(floor)


def curves(ratios: Iterable[float], floors: Iterable[float]) -> list[Rule]:
    """``loose`` by every scorer there is."""
    return [rule for scorer in SCORERS for rule in loose(scorer, ratios, floors)]


def shifts(ratio: float, windows: Iterable[int]) -> list[Rule]:
    """Position shift on either side and both, beside a loose ratio."""
    draft, target = "draft_shift", "target_shift"
    sides = {"draft": [draft], "target": [target], "both": [draft, target]}
    rules = []
    for side, keys in sides.items():
        family = f"{DEFAULT} {ratio} shift {side}"
        for window in windows:
            request = {"loose_ratio": ratio, **dict.fromkeys(keys, window)}
            rules.append(Rule(f"{family} {window}", family, {}, request))
    return rules


def layers(ratio: float) -> list[Rule]:
    """Which layers' attention scores: thirds, then every other layer alone."""
    third = TARGET_LAYERS // 3
    choices = [list(range(start, start + third + 1)) for start in (0, third, 2 * third)]
    choices += [[layer] for layer in range(1, TARGET_LAYERS, 2)]
    return [
        Rule(
            f"{DEFAULT} {ratio} layers {chosen[0]}-{chosen[-1]}",
            f"{DEFAULT} {ratio} by layers",
            {"layers": chosen},
            {"loose_ratio": ratio},
        )
        for chosen in choices
    ]


def guards(ratio: float) -> list[Rule]:
    """The never-loose sets: none, and each left out."""
    choices = {"none": (), **{f"no {out}": tuple(g for g in GUARDS if g != out) for out in GUARDS}}
    return [
        Rule(
            f"{DEFAULT} {ratio} guards {name}",
            f"{DEFAULT} {ratio} by guards",
            {"guards": list(kept)},
            {"loose_ratio": ratio},
        )
        for name, kept in choices.items()
    ]


def queries(ratios: Iterable[float]) -> list[Rule]:
    """Scored at the query that predicts a token, or at the one that consumes it."""
    return [
        Rule(
            f"{relevance} {ratio} {query}",
            f"{relevance} {query}",
            {"relevance": relevance, "query": query},
            {"loose_ratio": ratio},
        )
        for relevance in SCORERS
        if relevance != "random"
        for query in QUERIES
        for ratio in ratios
    ]


def pruned(ratio: float) -> list[Rule]:
    """Every way to prune the draft's video tokens, short videos too, strict and loose."""
    return [
        Rule(
            f"{name} pruning {pruning}",
            f"{name} by pruning",
            {"pruning": pruning, "keep_at_least": 0},
            request,
        )
        for pruning in PRUNERS
        for name, request in (
            (STRICT, {"preset": "strict"}),
            (f"{DEFAULT} {ratio}", {"loose_ratio": ratio}),
        )
    ]


def main() -> list[Rule]:
    """The presets, FLy, and the default's and the control's curves, bare and at presets' floors."""
    floors = sorted({relax.floor for relax in PRESETS.values()} - {0.0})
    return [
        *presets(),
        *fly(),
        *loose(DEFAULT, RATIOS[1:]),
        *loose(DEFAULT, (0.3, 0.7), floors),
        *loose("random", RATIOS[1:], [0.0, *floors]),
    ]


def named_sets() -> dict[str, list[Rule]]:
    """Every set that ``--rules`` takes; each run measures the baselines too."""
    sets = {
        "main": main(),
        "presets": [*presets(), *fly()],
        "quick": [*presets(), *fly(), *curves((0.5, 0.7), (0.0,))],
        "relevance": curves(RATIOS, (0.0,)),
        "floors": curves(RATIOS, FLOORS[1:]),
        "shift": [*shifts(0.0, (1, 3)), *shifts(0.7, WINDOWS)],
        "query": queries((0.5, 0.7)),
        "layers": layers(0.7),
        "guards": guards(0.7),
        "pruning": pruned(0.7),
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
