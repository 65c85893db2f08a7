"""Every setting of a server and of a request, and what its values may be."""

from dataclasses import dataclass, field
from typing import Any

RULES = ("loose", "fly")
SCORERS = ("focus", "attention", "cosine", "random")
QUERIES = ("predicting", "consuming")
PRUNERS = ("none", "uniform", "verifier", "unbiased")
GUARDS = ("digits", "negations", "order")
MAX_SHIFT = 16
MAX_FLY_ENTROPY = 2.0
LEAST_FLOOR = 1e-30  # far above what float32 takes for none


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise a ``ValueError`` unless the ``value`` of setting ``name`` is ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} {value!r}: one of {', '.join(allowed)}")


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} {value!r}: a number from {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{name} {value!r}: from {low} to {high}")


def _whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not whole or (most is not None and value > most):
        raise ValueError(
            f"{name} {value!r}: a whole number from {least}" + (f" to {most}" if most else "")
        )


@dataclass(frozen=True)
class RelaxConfig:
    """How far a request's verification is relaxed.

    Attributes:
        rule: ``loose`` (visual relevance decides) or ``fly`` (the target's entropy decides).
        loose_ratio: share of positions, those of lowest relevance, at which any drafted token is
            accepted; 0 is none.
        draft_shift: accept x_i if it is the target's token up to so many places away.
        target_shift: accept x_i if y_i is drafted up to so many places away.
        floor: a relaxed token needs at least this share of the probability of the target's own.
        visual_floor: the share that a loose token needs where the position is as visual as a loose
            one may be; in between, the logarithm grows with relevance. At most ``floor``: no more.
            Without a floor it says nothing.
        fly_entropy_threshold: for ``fly``; the least entropy of an uncertain target, in nats over
            its three likeliest tokens.
        fly_window_size: for ``fly``; how many drafted tokens after a mismatch must match.
    """

    rule: str = "loose"
    loose_ratio: float = 0.0
    draft_shift: int = 0
    target_shift: int = 0
    floor: float = 0.0
    visual_floor: float = 0.0
    fly_entropy_threshold: float = 0.3
    fly_window_size: int = 6

    def __post_init__(self) -> None:
        one_of("rule", self.rule, RULES)
        _within("loose_ratio", self.loose_ratio, 0.0, 1.0)
        _within("floor", self.floor, 0.0, 1.0)
        if 0 < self.floor < LEAST_FLOOR:
            raise ValueError(f"floor {self.floor!r}: 0 for none, or from {LEAST_FLOOR}")
        _within("visual_floor", self.visual_floor, 0.0, 1.0)
        _within("fly_entropy_threshold", self.fly_entropy_threshold, 0.0, MAX_FLY_ENTROPY)
        for name in ("draft_shift", "target_shift", "fly_window_size"):
            _whole_number(name, getattr(self, name), most=MAX_SHIFT)

    @property
    def threshold_floor(self) -> float:
        """The share that a loose token needs at the threshold: ``visual_floor``, no less than
        ``floor``; none without one."""
        return max(self.floor, self.visual_floor) if self.floor else 0.0

    @property
    def strict(self) -> bool:
        """Whether answers are the target's own, token for token."""
        return self.rule == "loose" and not (
            self.loose_ratio or self.draft_shift or self.target_shift
        )


PRESETS = {
    "strict": RelaxConfig(),
    # The rule as the paper has it; window and side of its position shift are not published.
    "paper": RelaxConfig(loose_ratio=0.7, draft_shift=3, target_shift=3),
    # Ours, for a target whose relevance was measured.
    "balanced": RelaxConfig(loose_ratio=0.9, floor=0.0007, visual_floor=0.01),
    "fast": RelaxConfig(loose_ratio=0.95, floor=0.001),
}


@dataclass(frozen=True)
class DraftLengthConfig:
    """How many tokens rounds draft, see ``draft_length.py``.

    Attributes:
        above: nothing is drafted for a batch of more requests; None for no such bound.
        measure: whether the length is chosen by measured speed, else it is the server's number of
            steps; None: on an accelerator, not on the CPU platform.
        run: rounds until other lengths are tried again, at first.
        trial: rounds of a try.
        longest: the most rounds between tries.
    """

    above: int | None = None
    measure: bool | None = None
    run: int = 64
    trial: int = 8
    longest: int = 1024

    def __post_init__(self) -> None:
        if self.measure is not None and not isinstance(self.measure, bool):
            raise ValueError(f"draft_length measure {self.measure!r}: true, false or null")
        for name in ("above", "run", "trial", "longest"):
            value = getattr(self, name)
            if value is None and name == "above":
                continue
            _whole_number(f"draft_length {name}", value, least=0 if name == "above" else 1)
        if self.longest < self.run:
            raise ValueError(f"draft_length longest {self.longest}: at least run, {self.run}")


@dataclass(frozen=True)
class LVSpecConfig:
    """A server's configuration.

    Attributes:
        relax: what a request gets that says nothing itself; None for ``balanced`` where the
            target's relevance was measured (``relevance/measured.py``), else ``strict``.
        relevance: the scorer: ``focus`` (how much and how pointedly attention lies on the video),
            ``attention`` (its share on the video), ``cosine`` (the paper's) or ``random``.
        layers: target layers the scorer reads; empty for the measured ones, else some of the
            middle third, and for ``cosine``, which reads the first of them, the last layer.
        query: where a drafted token is scored: at the query ``predicting`` or ``consuming`` it.
        guards: word classes never relaxed, beside stop and special tokens.
        pruning: how the draft's video tokens are chosen, or ``none`` to keep them all.
        keep: share of a video's tokens that the draft keeps, above 0.
        keep_at_least: tokens of a video that are kept in any case; a shorter one is kept whole,
            as there is next to nothing to save.
        draft_length: how many tokens rounds draft.
        share_from: tokens of KV that requests on one video save a layer of the target by reading
            it together, from which they do, on FlashInfer. On an H200 less did not pay.
    """

    relax: RelaxConfig | None = None
    relevance: str = "focus"
    layers: tuple[int, ...] = ()
    query: str = "predicting"
    guards: tuple[str, ...] = GUARDS
    pruning: str = "verifier"
    keep: float = 0.1
    keep_at_least: int = 512
    draft_length: DraftLengthConfig = field(default_factory=DraftLengthConfig)
    share_from: int = 192 * 1024

    def __post_init__(self) -> None:
        one_of("relevance", self.relevance, SCORERS)
        one_of("query", self.query, QUERIES)
        one_of("pruning", self.pruning, PRUNERS)
        _within("keep", self.keep, 0.0, 1.0)
        if self.keep == 0:
            raise ValueError("keep 0: above 0, up to 1; for example 0.1")
        _whole_number("keep_at_least", self.keep_at_least)
        _whole_number("share_from", self.share_from, least=1)
        for guard in self.guards:
            one_of("guards", guard, GUARDS)
        for layer in self.layers:
            if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
                raise ValueError(f"layers {list(self.layers)!r}: a list of layer numbers from 0")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers {list(self.layers)!r}: name each layer once")


@dataclass(frozen=True)
class RequestConfig:
    """What a request says.

    Attributes:
        relax: how far its verification is relaxed.
        trace: whether ``meta_info`` shall say of each token what its verdict rests on.
    """

    relax: RelaxConfig
    trace: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.trace, bool):
            raise ValueError(f"trace {self.trace!r}: true or false")
