import pytest

from lvspec_sglang.config import PRESETS, RelaxConfig
from lvspec_sglang.config_json import parse_request


def test_presets() -> None:
    assert PRESETS["strict"].strict
    assert not PRESETS["paper"].strict
    assert not RelaxConfig(rule="fly").strict


@pytest.mark.parametrize("default", ["strict", "balanced"])
def test_what_is_refused_does_not_depend_on_the_servers_default(default: str) -> None:
    """The process that takes requests does not know it."""
    preset = PRESETS[default]
    free = parse_request({"loose_ratio": 0.5, "floor": 0}, preset).relax
    assert (free.floor, free.threshold_floor, free.strict) == (0, 0, False)
    raised = parse_request({"visual_floor": 0.05}, preset).relax
    assert raised.threshold_floor == (0.05 if default == "balanced" else 0)
    for wrong in ({"floor": 0, "visual_floor": 0.1}, {"preset": "paper", "visual_floor": 0.1}):
        with pytest.raises(ValueError, match="give a floor above 0 beside it"):
            parse_request(wrong, preset)


def test_a_visual_floor_is_a_share() -> None:
    with pytest.raises(ValueError, match="visual_floor 2"):
        RelaxConfig(loose_ratio=0.5, floor=0.1, visual_floor=2)
