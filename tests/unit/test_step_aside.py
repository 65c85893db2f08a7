"""The rule that chooses between drafting and plain decoding."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvspec_sglang.clock import Clock
from lvspec_sglang.config import StepAsideConfig
from lvspec_sglang.config_json import parse_server
from lvspec_sglang.step_aside import Pace, StepAside

CLOCK = Clock(torch.device("cpu"))


def agree(decision: bool) -> bool:
    return decision


def play(pace: Pace, rounds: int, drafted_speed: float, plain_speed: float) -> list[bool]:
    """Run ``rounds`` on a machine of these speeds, in tokens a second; say which drafted."""
    ways = []
    for _ in range(rounds):
        drafts = pace.next(agree)
        pace.learn(drafts, 1.0, drafted_speed if drafts else plain_speed)
        ways.append(drafts)
    return ways


def lengths(ways: list[bool]) -> list[tuple[bool, int]]:
    return [(way, len(list(group))) for way, group in itertools.groupby(ways)]


def test_the_faster_way_runs_longer_and_longer() -> None:
    config = StepAsideConfig(run=4, trial=2, longest=10)
    drafting = lengths(play(Pace(config), 38, drafted_speed=3.0, plain_speed=1.0))
    assert drafting == [
        (True, 2), (False, 2), (True, 4), (False, 2), (True, 8), (False, 2), (True, 10),
        (False, 2), (True, 6),
    ]  # fmt: skip
    # Tried, and kept as the faster way.
    plain = lengths(play(Pace(config), 28, drafted_speed=1.0, plain_speed=3.0))
    assert plain == [(True, 2), (False, 6), (True, 2), (False, 8), (True, 2), (False, 8)]


@given(
    drafted=st.floats(0.1, 10), plain=st.floats(0.1, 10), run=st.integers(1, 40),
    trial=st.integers(1, 16), more=st.integers(0, 100),
)  # fmt: skip
def test_the_slower_way_costs_at_most_the_trials(
    drafted: float, plain: float, run: int, trial: int, more: int
) -> None:
    pace = Pace(StepAsideConfig(run=run, trial=trial, longest=run + more))
    ways = play(pace, 600, drafted, plain)
    slower = ways.count(drafted < plain)
    if max(drafted, plain) > 1.06 * min(drafted, plain):
        assert slower <= run + 600 * trial / (run + trial) + trial


def test_acceptance_that_comes_back_brings_drafting_back() -> None:
    pace = Pace(StepAsideConfig(run=8, trial=4, longest=16))
    assert not any(play(pace, 56, drafted_speed=0.5, plain_speed=1.0)[-8:])
    again = play(pace, 120, drafted_speed=4.0, plain_speed=1.0)
    assert again[-40:].count(True) >= 32


def test_one_stalled_round_changes_nothing() -> None:
    pace = Pace(StepAsideConfig(run=8, trial=4, longest=8))
    for number in range(48):
        drafts = pace.next(agree)
        stalled = drafts and number % 8 == 3
        pace.learn(drafts, 30.0 if stalled else 1.0, 3.0 if drafts else 1.0)
    assert pace.drafts


def test_only_rank_0_changes_minds() -> None:
    asked = []

    def never(decision: bool) -> bool:
        asked.append(decision)
        return False

    pace = Pace(StepAsideConfig(run=4, trial=2, longest=4))
    for _ in range(24):
        drafts = pace.next(never)
        pace.learn(drafts, 1.0, 1.0 if drafts else 5.0)
    assert asked == [True] * 4
    assert pace.drafts


def test_no_batch_above_the_bound_is_drafted() -> None:
    rule = StepAside(StepAsideConfig(above=4), False, CLOCK, agree)
    assert [rule.drafts(batch) for batch in (1, 4, 5, 48)] == [True, True, False, False]


def test_results_arrive_later_than_rounds_start() -> None:
    """Under overlap scheduling; the measurement goes to the round it belongs to."""
    rule = StepAside(StepAsideConfig(run=2, trial=2), True, CLOCK, agree)
    for _ in range(2):
        drafts = rule.drafts(3)
        rule.ran(3, drafts, CLOCK.now())
    assert rule.report()["4"]["tokens_per_second"] == {"drafted": None, "plain": None}
    rule.finished([4, 6, 2])
    rule.drafts(4)
    rule.ran(4, False, CLOCK.now())
    rule.finished([0, 0, 0])
    assert rule.report()["4"]["tokens_per_second"]["plain"] is None
    rule.finished([0, 0, 0, 0])
    assert rule.report()["4"]["tokens_per_second"]["plain"] > 0
    assert list(rule.report()) == ["4"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"step_aside": 4}', "step_aside 4: a JSON object"),
        ('{"step_aside": {"abvoe": 4}}', "unknown step_aside key 'abvoe'; allowed are above,"),
        ('{"step_aside": {"above": -1}}', "step_aside above -1: a whole number from 0"),
        ('{"step_aside": {"trial": 0}}', "step_aside trial 0: a whole number from 1"),
        ('{"step_aside": {"run": true}}', "step_aside run True: a whole number from 1"),
        ('{"step_aside": {"measure": "yes"}}', "step_aside measure 'yes': true, false or null"),
        ('{"step_aside": {"run": 2000}}', "step_aside longest 1024: at least run, 2000"),
    ],
)
def test_wrong_settings_are_named(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        parse_server(given)
