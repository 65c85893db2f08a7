"""A rule that ``lvspec bench fidelity`` compares, and those that others are compared with."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from lvspec_sglang.config import PRESETS, LVSpecConfig, RelaxConfig
from lvspec_sglang.config_json import parse_request, parse_server

DEFAULT = LVSpecConfig().relevance
ALONE = "alone"
STRICT = "strict"


class Floors(NamedTuple):
    """What a relaxed token needs, as ``RelaxConfig`` has it; together, as one curve has both."""

    floor: float = 0.0
    visual_floor: float = 0.0

    @classmethod
    def of(cls, relax: RelaxConfig) -> "Floors":
        return cls(relax.floor, relax.visual_floor)


BARE = Floors()
BALANCED = Floors.of(PRESETS["balanced"])


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


def served(meaning: dict[str, Any] | None) -> dict[str, Any] | None:
    """What of a rule's meaning is its server's; rules of equal ones can share a server."""
    return meaning and {key: value for key, value in meaning.items() if key != "relax"}


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


def loose(relevance: str, ratios: Iterable[float], floors: Floors = BARE) -> list[Rule]:
    """Loose acceptance by a scorer: a curve of ratios at the same floors."""
    family = curve_name(relevance, floors)
    return [
        Rule(
            f"{family} {ratio}",
            family,
            {"relevance": relevance},
            {"loose_ratio": ratio, **floors._asdict()},
        )
        for ratio in ratios
    ]


def curve_name(relevance: str, floors: Floors) -> str:
    """The family of a scorer's curve at its floors."""
    if floors == BARE:
        return relevance
    rising = f" to {floors.visual_floor}" * (floors.visual_floor > floors.floor)
    return f"{relevance} floor {floors.floor}{rising}"
