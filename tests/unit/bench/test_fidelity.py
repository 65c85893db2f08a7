"""The fidelity bench without a server: rules, answers on disk, figures, table, plot."""

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvspec_sglang.bench import bootstrap, fidelity, plot, table, tally, versus
from lvspec_sglang.bench.answers import AnswerLog
from lvspec_sglang.bench.conversations import chat, choose_questions, group_of
from lvspec_sglang.bench.geometric import relaxed
from lvspec_sglang.bench.rule_sets import chosen, named_sets
from lvspec_sglang.bench.rules import (
    ALONE,
    BALANCED,
    DEFAULT,
    STRICT,
    Rule,
    baselines,
    curve_name,
    loose,
    presets,
)
from lvspec_sglang.cli import main
from lvspec_sglang.config_json import parse_server
from lvspec_sglang.miniworld import paths
from lvspec_sglang.miniworld.clips import truth_of
from lvspec_sglang.miniworld.scene import HELD_OUT, make_scene

CLIPS = 40


@pytest.fixture(scope="module")
def truths() -> list[dict[str, Any]]:
    lines = [truth_of(make_scene(HELD_OUT + seed), f"held_{seed}.mp4") for seed in range(CLIPS)]
    return [line | {"asked": choose_questions(line)} for line in lines]


def answered(truth: dict[str, Any], accepted: int, wrong: bool) -> list[dict[str, Any]]:
    """A conversation whose caption says nothing, and whose answers are some right or all empty."""
    right = {} if wrong else {"exists": "No, there is no such object.", "order": "It came before."}
    texts = ["", *(right.get(question["kind"], "") for question in truth["asked"])]
    more = {
        "ids": "",
        "tokens": 20,
        "ran_on": wrong,
        "rounds": 4 * (accepted > 0),
        "accepted": accepted + 1,
    }
    return [{"text": text, "kinds": {"match": accepted, "target": 3}, **more} for text in texts]


def logged(
    path: Path, truths: list[dict[str, Any]], rules: list[tuple[Rule, int, bool]]
) -> AnswerLog:
    """A log of rules, with the tokens each accepts and whether it spoils every other clip."""
    log = AnswerLog(path)
    for rule, accepted, wrong in rules:
        log.begin(rule)
        for number, truth in enumerate(truths):
            spoilt = wrong and number % 2 == 0
            log.add(rule.name, truth["video"], answered(truth, accepted, spoilt))
    return log


def test_every_named_rule_is_one_the_package_takes() -> None:
    for name, rules in named_sets().items():
        assert rules, name
        assert all(rule.meaning() for rule in rules)
    everything = chosen("all")
    assert [rule.name for rule in everything[:2]] == [ALONE, STRICT]
    assert len({rule.name for rule in everything}) == len(everything)


def test_rules_of_a_file_and_the_messages_about_it(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps([{"name": "mine", "request": {"loose_ratio": 0.2}}]))
    mine = chosen(f"presets,{path}")[-1]
    assert (mine.name, mine.family, mine.server) == ("mine", "mine", {})
    assert mine.meaning()["relax"]["loose_ratio"] == 0.2  # type: ignore[index]
    path.write_text(json.dumps([{"name": "fly", "request": {"loose_ratio": 0.2}}]))
    with pytest.raises(ValueError, match="two rules are called 'fly'"):
        chosen(f"presets,{path}")
    path.write_text(json.dumps([{"name": "mine", "request": {"lose_ratio": 0.2}}]))
    with pytest.raises(ValueError, match="lose_ratio"):
        chosen(str(path))
    for wrong in ("[1]", "[]", "{}"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="write a JSON list"):
            chosen(str(path))
    with pytest.raises(ValueError, match="one of main, presets"):
        chosen("nothing")


def test_a_command_with_wrong_arguments_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fidelity", "--rules", "nothing"]) == 2
    assert "--rules 'nothing'" in capsys.readouterr().err
    assert main(["bench", "fidelity", "--clips", "0"]) == 2
    assert "at least 1 clip" in capsys.readouterr().err


def test_a_bench_that_is_ended_leaves_by_its_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def ended(arguments: argparse.Namespace) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            left.append("server")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(fidelity, "run", ended)
    with pytest.raises(SystemExit, match="143"):
        main(["bench", "fidelity", "--clips", "1"])
    assert left == ["server"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_rules_of_equal_server_settings_share_a_server() -> None:
    rules = [*baselines(), *loose(DEFAULT, (0.5, 0.7)), *loose("random", (0.5,))]
    groups = fidelity.servers(rules)
    assert [[rule.name for rule in members] for _, members in groups] == [
        [ALONE],
        [STRICT, f"{DEFAULT} 0.5", f"{DEFAULT} 0.7"],
        ["random 0.5"],
    ]
    assert groups[0][0] is None
    assert [config["relevance"] for config, _ in groups[1:] if config] == [DEFAULT, "random"]
    for config, _ in groups[1:]:
        assert parse_server(json.dumps(config)).relax is None


def test_questions_are_one_of_negation_one_of_order_one_other(truths: list[dict[str, Any]]) -> None:
    for truth in truths:
        groups = [group_of(question) for question in truth["asked"]]
        assert groups in (["negation", "order", "other"], ["negation", "other"])
    denied = {"kind": "exists", "value": "none", "question": "Is there a red object?"}
    doubly = {"kind": "exists", "value": "ring", "question": "Is there no red object?"}
    assert group_of(denied) == group_of(doubly) == "negation"


def test_a_conversation_is_written_as_the_pairs_template_writes_it() -> None:
    from transformers import AutoTokenizer

    asked = [{"type": "video"}, {"type": "text", "text": "Describe it."}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    turns = ["Describe it."]
    template = AutoTokenizer.from_pretrained(paths().target).apply_chat_template
    for _ in range(2):
        assert chat(*turns) == template(messages, tokenize=False, add_generation_prompt=True)
        turns += ["A ring moves.", "How many?"]
        messages.append({"role": "assistant", "content": "A ring moves."})
        messages.append({"role": "user", "content": [{"type": "text", "text": "How many?"}]})


def test_a_stopped_run_goes_on(tmp_path: Path, truths: list[dict[str, Any]]) -> None:
    path = tmp_path / "run.answers.jsonl"
    alone, strict = baselines()
    log = logged(path, truths[:3], [(alone, 0, False), (strict, 8, False)])
    log.close()
    again = AnswerLog(path)
    assert again.has(STRICT, truths[2]["video"])
    assert not again.has(STRICT, truths[3]["video"])
    assert again.answers == log.answers
    again.check(truths)
    with pytest.raises(ValueError, match="give the same --questions"):
        again.check([truth | {"asked": []} for truth in truths])
    again.begin(strict)
    with pytest.raises(ValueError, match="has 'strict' as"):
        again.begin(Rule(STRICT, STRICT, {}, {"preset": "paper"}))
    again.close()
    assert len(path.read_text().splitlines()) == 2 + 6
    path.write_text(path.read_text() + '{"rule": "strict", "vid')
    with pytest.raises(ValueError, match=r"jsonl:9 is not a line"):
        AnswerLog(path)


def test_strict_answers_other_than_the_targets_end_the_run(
    tmp_path: Path, truths: list[dict[str, Any]]
) -> None:
    log = logged(tmp_path / "run.jsonl", truths[:1], [(baselines()[0], 0, False)])
    other = answered(truths[0], 8, False)
    other[-1]["ids"] = "another"
    log.add(STRICT, truths[0]["video"], other)
    log.close()
    with pytest.raises(fidelity.NotIdentical, match="strict is not the target alone"):
        fidelity.table_rows(baselines(), truths[:1], log)


def test_rows_and_table(tmp_path: Path, truths: list[dict[str, Any]]) -> None:
    alone, strict = baselines()
    (attention,) = loose("attention", (0.5,))
    controls = loose("random", (0.5, 0.7))
    rules = [(alone, 0, False), (strict, 8, False), (attention, 16, False)]
    rules += [(control, 20, True) for control in controls]
    log = logged(tmp_path / "run.jsonl", truths, rules)
    rows = fidelity.table_rows([rule for rule, _, _ in rules], truths, log)
    log.close()
    by_rule = {row["rule"]: row for row in rows}
    assert by_rule[ALONE]["T"] is None
    assert by_rule[STRICT]["T"] == 2.0 and by_rule[STRICT]["T_host"] == 2.25
    assert by_rule[STRICT]["kept"] == 1.0 and by_rule[STRICT]["kept_within_noise"]
    guided, control = by_rule["attention 0.5"], by_rule["random 0.5"]
    assert guided["T"] == 4.0 and guided["T_to_strict"] == 2.0 and guided["kept_ci95"] == (1.0, 1.0)
    assert control["kept"] < 0.7 and not control["kept_within_noise"]
    assert control["order"]["minus_alone_ci95"][1] < 0
    assert guided["over_random"]["verdict"] == "better"
    # At two thirds of the way from strict (T 2) to the control (T 5) by a straight line.
    expected = (1 - control["kept"]) * 2 / 3
    assert guided["over_random"]["kept"] == pytest.approx(expected)
    lines = list(table.lines(rows))
    assert len(lines) == 1 + len(rows)
    assert "below 98%" in fidelity.warnings(rows)[0]
    assert not fidelity.warnings([{"rule": ALONE, "accuracy": 0.995}])
    ran_on = sum(1 + len(truth["asked"]) for truth in truths[::2])
    assert "better" in lines[3] and lines[4].rstrip().endswith(f" {ran_on}")
    assert json.loads(json.dumps(rows, allow_nan=False))
    plot.draw({"rows": json.loads(json.dumps(rows)), "clips": CLIPS}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_clips_answers_are_drawn_together() -> None:
    clips = 200
    draws = bootstrap.resamples(clips)
    assert (draws.sum(axis=1) == clips).all()
    right = np.repeat([10.0, 0.0], clips // 2)
    facts = np.full(clips, 10.0)
    low, high = bootstrap.interval(bootstrap.ratios(draws, right, facts)) or (0, 0)
    # The error of a mean of 200 halves, not of 2000.
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / clips**0.5, rel=0.1)


def test_a_difference_within_noise_is_told_from_one_that_is_not() -> None:
    rng = np.random.default_rng(0)
    draws, facts = bootstrap.resamples(500), np.full(500, 20.0)
    base = rng.binomial(20, 0.95, 500).astype(float)
    same, worse = base.copy(), base - (rng.random(500) < 0.3)
    same[:3] += 1
    same[3:6] -= 1
    of = [bootstrap.ratios(draws, right, facts) for right in (base, same, worse)]
    assert not bootstrap.differs(of[0], of[1])
    assert bootstrap.differs(of[0], of[2])


def test_beyond_the_controls_curve_nothing_is_compared(
    tmp_path: Path, truths: list[dict[str, Any]]
) -> None:
    alone, strict = baselines()
    (attention,), (control,) = loose("attention", (0.9,)), loose("random", (0.3,))
    rules = [(alone, 0, False), (strict, 8, False), (attention, 30, True), (control, 12, True)]
    log = logged(tmp_path / "run.jsonl", truths, rules)
    log.close()
    names = [rule.name for rule, _, _ in rules]
    counts = {
        name: tally.count(truths, [log.answers[name][t["video"]] for t in truths]) for name in names
    }
    draws = bootstrap.resamples(len(truths))
    assert versus.compare(attention, [rule for rule, _, _ in rules], counts, draws) == {}


def test_the_geometric_prediction_is_the_papers() -> None:
    # The paper's T: strict 3.29, random relaxation of 50 % and 75 % 5.55 and 7.42.
    assert relaxed(3.29, 0.0, 10) == pytest.approx(3.29, abs=1e-6)
    assert relaxed(3.29, 0.5, 10) == pytest.approx(5.55, rel=0.03)
    assert relaxed(3.29, 0.75, 10) == pytest.approx(7.42, rel=0.03)
    assert relaxed(3.29, 1.0, 10) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("name", "curves"), [("main", True), ("shift", True), ("layers", False), ("pruning", False)]
)
def test_a_line_joins_rules_of_one_server(name: str, curves: bool) -> None:
    families: dict[str, list[dict[str, Any]]] = {}
    for rule in named_sets()[name]:
        families.setdefault(rule.family, []).append({"relaxation": rule.meaning()})
    joined = [plot.is_curve(members) for members in families.values() if len(members) > 1]
    assert joined and all(line == curves for line in joined)


def test_without_matplotlib_the_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    arguments = argparse.Namespace(rules="presets", plot=Path("x.png"), json=None, clips=1, seed=0)
    with pytest.raises(ValueError, match=r"lvspec-sglang\[bench\]"):
        fidelity.run(arguments)


def test_the_bare_control_stands_in_where_the_one_at_the_floor_ends(
    tmp_path: Path, truths: list[dict[str, Any]]
) -> None:
    alone, strict = baselines()
    balanced = next(rule for rule in presets() if rule.name == "balanced")
    (near,), (far,) = loose("random", (0.5,), BALANCED), loose("random", (1.0,))
    fly = Rule("fly", "fly", {}, {"rule": "fly"})
    rules = [(alone, 0, False), (strict, 8, False), (balanced, 16, False), (fly, 10, True)]
    rules += [(near, 12, True), (far, 20, True)]
    log = logged(tmp_path / "run.jsonl", truths, rules)
    rows = fidelity.table_rows([rule for rule, _, _ in rules], truths, log)
    log.close()
    by_rule = {row["rule"]: row for row in rows}
    assert by_rule["balanced"]["over_random"]["control"] == "random"
    assert by_rule["fly"]["over_random"]["control"] == "random"
    assert by_rule["fly"]["over_default"]["control"] == curve_name(DEFAULT, BALANCED)
    assert by_rule["fly"]["over_default"]["verdict"] == "worse"
