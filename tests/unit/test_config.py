import pytest

from lvspec_sglang.config import PRESETS, RelaxConfig


def test_presets() -> None:
    assert PRESETS["strict"].strict
    assert not PRESETS["paper"].strict
    assert not RelaxConfig(rule="fly").strict


def test_a_visual_floor_rises_from_a_floor() -> None:
    with pytest.raises(ValueError, match="give a floor above 0 beside it"):
        RelaxConfig(loose_ratio=0.5, visual_floor=0.1)
    with pytest.raises(ValueError, match="visual_floor 2"):
        RelaxConfig(loose_ratio=0.5, floor=0.1, visual_floor=2)
