"""What a target's config says of its relevance."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from lvspec_sglang.config import PRESETS, LVSpecConfig
from lvspec_sglang.miniworld import paths
from lvspec_sglang.relevance.measured import SCORES, Measured, check_layers, measured_for
from lvspec_sglang.scoring import default_relax

ASCENDING = [place / SCORES for place in range(SCORES)]


def target(**entry: Any) -> Any:
    return SimpleNamespace(lvspec=entry)


def test_a_measurement_holds_for_the_scorer_it_was_made_with() -> None:
    measured = target(layers=[8, 12], scores=ASCENDING)
    assert measured_for(LVSpecConfig(), measured) == Measured((8, 12), tuple(ASCENDING))
    assert measured_for(LVSpecConfig(layers=(3,)), measured) is None
    assert measured_for(LVSpecConfig(relevance="cosine"), measured) is None
    assert measured_for(LVSpecConfig(query="consuming"), measured) is None
    assert measured_for(LVSpecConfig(), SimpleNamespace()) is None


@pytest.mark.parametrize(
    "entry",
    [
        {"layers": [8]},
        {"layers": [], "scores": ASCENDING},
        {"layers": [8], "scores": ASCENDING[1:]},
        {"layers": [8], "scores": ASCENDING[::-1]},
        {"layers": [8], "scores": [*ASCENDING[:-1], math.nan]},
        {"layers": ["eight"], "scores": ASCENDING},
        {"layers": [-1], "scores": ASCENDING},
        {"layers": [8.7], "scores": ASCENDING},
        {"layers": [8, 8], "scores": ASCENDING},
        {"layers": 8, "scores": ASCENDING},
    ],
)
def test_another_form_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="64 ascending scores, or take it out"):
        Measured.of(target(**entry))


def test_a_measured_target_is_balanced_by_default(caplog: pytest.LogCaptureFixture) -> None:
    paper = PRESETS["paper"]
    with caplog.at_level("INFO"):
        assert default_relax(LVSpecConfig(), measured=True) == PRESETS["balanced"]
        assert default_relax(LVSpecConfig(), measured=False) == PRESETS["strict"]
        assert default_relax(LVSpecConfig(PRESETS["strict"]), measured=True).strict
        assert default_relax(LVSpecConfig(paper), measured=False) == paper
        assert default_relax(LVSpecConfig(paper), measured=True, words=False).strict
    relaxed, unmeasured, named, wordless = caplog.messages
    assert "(balanced)" in relaxed and "use the preset strict" in relaxed
    assert "was not measured" not in relaxed and "was not measured" in named
    assert "not measured" in unmeasured
    assert "(paper)" in named and "--skip-tokenizer-init" in wordless


def test_the_mini_target_was_measured() -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(paths().target)
    assert Measured.of(config) is not None
    check_layers(LVSpecConfig(), config, 14)
    with pytest.raises(ValueError, match=r"layers \[14\]: the target has layers 0 to 13"):
        check_layers(LVSpecConfig(layers=(14,)), config, 14)
