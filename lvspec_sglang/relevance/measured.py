"""What was measured of a target: which layers tell facts from wording, and how they score.

It stands in the target's ``config.json`` as ``"lvspec": {"layers": [...], "scores": [...]}``: the
layers of the scorer ``focus``, and the scores of positions of its own answers, ascending and
evenly spread. A position is then as visual as it is beside those, from an answer's first token on,
where else it is compared with the answer's own. (Ours; ``lvspec miniworld layers`` measures it.)
"""

from itertools import pairwise
from typing import Any, NamedTuple

from lvspec_sglang.config import LVSpecConfig

SCORES = 64


class Measured(NamedTuple):
    """A target's measurement.

    Attributes:
        layers: that the scorer ``focus`` reads.
        scores: ``SCORES`` quantiles of its scores, ascending.
    """

    layers: tuple[int, ...]
    scores: tuple[float, ...]

    @classmethod
    def of(cls, config: Any) -> "Measured | None":
        """The measurement in a target's ``config``, a transformers configuration; None without.

        Raises:
            ValueError: an entry of another form.
        """
        given = getattr(config, "lvspec", None)
        if given is None:
            return None
        try:
            layers, scores = tuple(given["layers"]), tuple(map(float, given["scores"]))
            LVSpecConfig(layers=layers)
        except (KeyError, TypeError, ValueError):
            layers, scores = (), ()
        rising = all(low <= high for low, high in pairwise(scores))
        if not layers or len(scores) != SCORES or not rising:
            raise ValueError(
                f"""the target's config.json has "lvspec": {given!r}; write {{"layers": [...], """
                f""""scores": [...]}} with {SCORES} ascending scores, or take it out"""
            )
        return cls(layers, scores)


def check_layers(config: LVSpecConfig, target: Any, count: int) -> None:
    """Whether a target of ``count`` layers has those that are to be read.

    Args:
        target: its transformers configuration.

    Raises:
        ValueError: it does not, or as ``Measured.of``.
    """
    measured = measured_for(config, target)
    layers = measured.layers if measured else config.layers
    if any(layer >= count for layer in layers):
        raise ValueError(f"layers {list(layers)}: the target has layers 0 to {count - 1}")


def measured_for(config: LVSpecConfig, target: Any) -> Measured | None:
    """The measurement of ``target``, its transformers configuration, if it holds as configured.

    Raises:
        ValueError: as ``Measured.of``.
    """
    as_measured = config.relevance == "focus" and config.query == "predicting"
    return Measured.of(target) if as_measured and not config.layers else None
