from lvspec_sglang.config import PRESETS, RelaxConfig


def test_presets() -> None:
    assert PRESETS["strict"].strict
    assert not PRESETS["paper"].strict
    assert not RelaxConfig(rule="fly").strict
