from pathlib import Path

import pytest

from lvspec_sglang import config
from lvspec_sglang.config import (
    PRESETS,
    LVSpecConfig,
    RelaxConfig,
    RequestConfig,
    parse_request,
    parse_server,
)


def test_presets() -> None:
    assert PRESETS["strict"].strict
    assert not PRESETS["paper"].strict
    assert not RelaxConfig(rule="fly").strict


def test_a_request_changes_what_it_names_and_keeps_the_rest() -> None:
    default = RelaxConfig(loose_ratio=0.5, floor=0.1)
    assert parse_request(None, default) == RequestConfig(default)
    assert parse_request({"floor": 0.2}, default).relax == RelaxConfig(loose_ratio=0.5, floor=0.2)
    assert parse_request({"preset": "strict"}, default).relax == RelaxConfig()
    paper = parse_request({"preset": "paper", "loose_ratio": 0.9}, default).relax
    assert (paper.loose_ratio, paper.draft_shift) == (0.9, PRESETS["paper"].draft_shift)


def test_a_server_takes_text_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"preset": "paper", "relevance": "random", "guards": ["digits"], "layers": [1, 2]}'
    want = LVSpecConfig(PRESETS["paper"], relevance="random", layers=(1, 2), guards=("digits",))
    assert parse_server(text) == want
    file = tmp_path / "lvspec.json"
    file.write_text(text)
    assert parse_server(str(file)) == want
    monkeypatch.setenv(config.CONFIG_ENV, text)
    assert config.server_config() == want
    monkeypatch.delenv(config.CONFIG_ENV)
    assert config.server_config() == LVSpecConfig()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("strict", "a JSON object, for example"),
        ({"preset": "quick"}, "preset 'quick': one of strict, paper, balanced, fast"),
        ({"loose": 1}, "unknown lvspec key 'loose'; allowed are rule, loose_ratio"),
        ({"loose_ratio": 1.5}, "loose_ratio 1.5: from 0.0 to 1.0"),
        ({"loose_ratio": "high"}, "loose_ratio 'high': a number"),
        ({"loose_ratio": True}, "loose_ratio True: a number"),
        ({"draft_shift": 2.5}, "draft_shift 2.5: a whole number from 0 to 16"),
        ({"target_shift": 99}, "target_shift 99: a whole number from 0 to 16"),
        ({"floor": -1}, "floor -1: from 0.0"),
        ({"fly_window_size": 17}, "fly_window_size 17: a whole number from 0 to 16"),
        ({"fly_entropy_threshold": 3}, "fly_entropy_threshold 3: from 0.0 to 2.0"),
        ({"rule": "magic"}, "rule 'magic': one of loose, fly"),
        ({"relevance": "attention"}, "unknown lvspec key 'relevance'"),
    ],
)
def test_a_request_is_told_what_is_wrong(given: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_request(given, RelaxConfig())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/no/such/file", "neither a JSON object nor a file"),
        ('{"preset": ', "is not JSON"),
        ('{"relevance": "cosmic"}', "relevance 'cosmic': one of focus, attention, cosine, random"),
        ('{"guards": ["verbs"]}', "guards 'verbs': one of digits, negations, order"),
        ('{"guards": "digits"}', "guards 'digits': a list"),
        ('{"layers": [-1]}', "a list of layer numbers"),
        ('{"layers": [8, 8]}', "name each layer once"),
        ('{"pruning": "best"}', "pruning 'best': one of none, uniform, verifier, unbiased"),
        ('{"keep": 0}', "keep 0: above 0, up to 1"),
        ('{"keep_at_least": 0.5}', "keep_at_least 0.5: a whole number from 0"),
        ('{"keep": 10}', "keep 10: from 0.0 to 1.0"),
        ('{"keep": "10 %"}', "keep '10 %': a number"),
        ('{"relax": {}}', "unknown lvspec key 'relax'"),
    ],
)
def test_a_server_is_told_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_server(text)
