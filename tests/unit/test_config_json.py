"""What a server's and a request's JSON means, and what is said where it means nothing."""

from pathlib import Path

import pytest

from lvspec_sglang import config_json
from lvspec_sglang.config import PRESETS, LVSpecConfig, RelaxConfig, RequestConfig
from lvspec_sglang.config_json import asked_of, parse_request, parse_server


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
    monkeypatch.setenv(config_json.CONFIG_ENV, text)
    assert config_json.server_config() == want
    monkeypatch.delenv(config_json.CONFIG_ENV)
    assert config_json.server_config() == LVSpecConfig()


def test_a_server_that_names_no_relaxation_leaves_the_choice_to_the_target() -> None:
    for text in ("{}", '{"preset": null}', '{"preset": null, "keep": 0.5}'):
        assert parse_server(text).relax is None, text


def test_a_server_may_say_strict_in_two_ways_and_relax_without_a_preset() -> None:
    for text in ('{"preset": "strict"}', '{"loose_ratio": 0}', '{"preset": "strict", "floor": 1}'):
        relax = parse_server(text).relax
        assert relax is not None and relax.strict, text
    assert parse_server('{"loose_ratio": 0.5}').relax == RelaxConfig(loose_ratio=0.5)
    assert parse_server('{"preset": null, "rule": "fly"}').relax == RelaxConfig(rule="fly")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"floor": 0.01}',
            """floor: without a preset verification stays strict; name one to start from, for """
            """example '{"preset": "balanced", "floor": 0.01}'""",
        ),
        ('{"preset": null, "rule": "loose"}', "rule: without a preset"),
        ('{"floor": 0.1, "draft_shift": 0, "keep": 0.5}', "floor, draft_shift: without a preset"),
    ],
)
def test_a_servers_key_that_would_silently_mean_strict_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_server(text)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("strict", "lvspec 'strict': a JSON object, for example"),
        ({"preset": "quick"}, "preset 'quick': one of strict, paper, balanced, fast"),
        ({"loose": 1}, "unknown lvspec key 'loose'; allowed are rule, loose_ratio"),
        ({"loose_ratio": 1.5}, "loose_ratio 1.5: from 0.0 to 1.0"),
        ({"loose_ratio": "high"}, "loose_ratio 'high': a number"),
        ({"loose_ratio": True}, "loose_ratio True: a number"),
        ({"draft_shift": 2.5}, "draft_shift 2.5: a whole number from 0 to 16"),
        ({"target_shift": 99}, "target_shift 99: a whole number from 0 to 16"),
        ({"floor": -1}, "floor -1: from 0.0"),
        ({"floor": 1e-50}, "floor 1e-50: 0 for none, or from 1e-30"),
        ({"fly_window_size": 17}, "fly_window_size 17: a whole number from 0 to 16"),
        ({"fly_entropy_threshold": 3}, "fly_entropy_threshold 3: from 0.0 to 2.0"),
        ({"rule": "magic"}, "rule 'magic': one of loose, fly"),
        (
            {"relevance": "attention"},
            "lvspec key 'relevance' is a server's setting: give it in --lvspec-config",
        ),
        ({"relax": {}}, "unknown lvspec key 'relax'"),
    ],
)
def test_a_request_is_told_what_is_wrong(given: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_request(given, RelaxConfig())


def test_custom_params_are_an_object_or_ask_for_nothing() -> None:
    assert asked_of({"lvspec": {"floor": 0.1}, "other": 1}) == {"floor": 0.1}
    assert asked_of(None) is asked_of({}) is asked_of({"other": 1}) is None
    for wrong in ([1], [], "lvspec"):
        with pytest.raises(ValueError, match=r'a JSON object, for example {"lvspec": {"preset"'):
            asked_of(wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/no/such/file", "'/no/such/file' is neither a JSON object nor a file"),
        ('{"preset": ', "is not JSON"),
        ('{"relevance": "cosmic"}', "relevance 'cosmic': one of focus, attention, cosine, random"),
        ('{"guards": ["verbs"]}', "guards 'verbs': one of digits, negations, order"),
        ('{"guards": "digits"}', "guards 'digits': a list"),
        ('{"layers": [-1]}', "a list of layer numbers"),
        ('{"layers": [8, 8]}', "name each layer once"),
        ('{"pruning": "best"}', "pruning 'best': one of none, uniform, verifier, unbiased"),
        ('{"keep": 0}', "keep 0: above 0, up to 1"),
        ('{"keep_at_least": 0.5}', "keep_at_least 0.5: a whole number from 0"),
        ('{"share_from": 0}', "share_from 0: a whole number from 1"),
        ('{"keep": 10}', "keep 10: from 0.0 to 1.0"),
        ('{"keep": "10 %"}', "keep '10 %': a number"),
        ('{"loose_ratio": 0.5, "visual_floor": 0.1}', "give a floor above 0 beside it"),
        ('{"relax": {}}', "unknown lvspec key 'relax'"),
    ],
)
def test_a_server_is_told_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_server(text)


def test_a_text_that_cannot_be_a_path_or_a_file_of_json_is_quoted_in_short(tmp_path: Path) -> None:
    binary = tmp_path / "lvspec.json"
    binary.write_bytes(b"\xff\xfe{}")
    broken = tmp_path / "broken.json"
    broken.write_text("[" * 300)
    for text, said in (
        ("x" * 5000, f"'{'x' * 80}...' cannot be read as a file: File name too long"),
        ('{"layers": [' + "1, " * 5000, """'{"layers": [1, 1,"""),
        (str(binary), "cannot be read as a file: 'utf-8' codec can't decode"),
        ("~nobody-of-this-name/x.json", "cannot be read as a file"),
        (str(broken), " is not JSON: Expecting value"),
    ):
        with pytest.raises(ValueError) as raised:
            parse_server(text)
        assert type(raised.value) is ValueError
        assert said in str(raised.value) and len(str(raised.value)) < 300
