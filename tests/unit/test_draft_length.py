"""The rule that chooses how much to draft."""

import itertools
from collections.abc import Callable
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvspec_sglang.clock import Clock
from lvspec_sglang.config import DraftLengthConfig
from lvspec_sglang.config_json import parse_server
from lvspec_sglang.draft_length import Acceptance, DraftLength, Pace, lengths

CLOCK = Clock(torch.device("cpu"))
STEPS = 10


def agree(decision: int) -> int:
    return decision


def rate(share: float) -> Callable[[int], float]:
    """Accepted tokens of a chain, each accepted with this probability after the one before."""
    return lambda length: sum(share**place for place in range(1, length + 1))


def play(pace: Pace, rounds: int, share: float, step: float, dice: torch.Generator) -> list[int]:
    """Run ``rounds`` on a machine whose drafted token costs ``step`` of the target's forward."""
    ran = []
    for _ in range(rounds):
        length = pace.next()
        tokens = torch.rand(length, generator=dice) < share
        accepted = int(tokens.int().cumprod(dim=0).sum()) if length else 0
        pace.learn(length, 1 + step * length, [accepted])
        ran.append(length)
    return ran


def runs(ran: list[int]) -> list[tuple[int, int]]:
    return [(length, len(list(group))) for length, group in itertools.groupby(ran)]


def test_the_lengths_are_halves() -> None:
    assert lengths(10) == [10, 5, 2, 1, 0]
    assert lengths(32) == [32, 16, 8, 4, 2, 1, 0]
    assert lengths(1) == [1, 0]


def test_all_are_tried_then_the_fastest_runs_longer_and_longer_between_tries_of_its_neighbours():
    dice = torch.Generator().manual_seed(0)
    pace = Pace(DraftLengthConfig(run=4, trial=2, longest=10), STEPS, agree)
    assert runs(play(pace, 56, 1.0, 0.01, dice)) == [
        (10, 2), (5, 2), (2, 2), (1, 2), (0, 2), (10, 4), (5, 2), (10, 8), (5, 2), (10, 10),
        (5, 2), (10, 10), (5, 2), (10, 6),
    ]  # fmt: skip
    pace = Pace(DraftLengthConfig(run=4, trial=2, longest=10), STEPS, agree)
    assert runs(play(pace, 42, 0.0, 0.5, dice)) == [
        (10, 2), (5, 2), (2, 2), (1, 2), (0, 6), (1, 2), (0, 8), (1, 2), (0, 10), (1, 2), (0, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "step"),
    [(0.78, 0.23), (0.78, 0.1), (0.95, 0.23), (0.95, 0.05), (0.4, 0.23), (0.4, 0.5), (0.05, 0.5)],
)
def test_it_settles_on_a_length_that_pays(share: float, step: float) -> None:
    """0.78 is what gives the paper's strict T of 3.3; a 7B draft's step is 0.23 of a 32B target."""

    def speed(length: int) -> float:
        return (1 + rate(share)(length)) / (1 + step * length)

    dice = torch.Generator().manual_seed(1)
    ran = play(Pace(DraftLengthConfig(), STEPS, agree), 3000, share, step, dice)
    last = fmean(map(speed, ran[-1000:]))
    assert last >= 0.93 * max(map(speed, lengths(STEPS)))


@settings(deadline=None)
@given(
    share=st.floats(0, 1), step=st.floats(0.01, 1), run=st.integers(1, 40),
    trial=st.integers(1, 16), more=st.integers(0, 100), seed=st.integers(0, 99),
)  # fmt: skip
def test_every_round_is_of_a_known_length_and_tries_are_bounded(
    share: float, step: float, run: int, trial: int, more: int, seed: int
) -> None:
    pace = Pace(DraftLengthConfig(run=run, trial=trial, longest=run + more), STEPS, agree)
    ran = play(pace, 600, share, step, torch.Generator().manual_seed(seed))
    assert set(ran) <= set(lengths(STEPS))
    # Between runs two neighbours are tried at most.
    for length, rounds in runs(ran[5 * trial + run :])[1:-1]:
        assert rounds >= min(run, trial), (length, rounds)


@pytest.mark.parametrize(("times", "taken"), [(1.04, 4), (1.06, 2)])
def test_a_neighbour_takes_over_when_it_is_5_percent_faster(times: float, taken: int) -> None:
    pace = Pace(DraftLengthConfig(run=8, trial=4, longest=8), 4, agree)
    speeds = {4: 1.0, 2: times, 1: 0.5, 0: 0.5}
    for _ in range(100):
        length = pace.next()
        pace.learn(length, (1 + length) / speeds[length], [length])
    assert pace.length == taken


def test_acceptance_that_comes_back_brings_drafting_back() -> None:
    dice = torch.Generator().manual_seed(2)
    pace = Pace(DraftLengthConfig(run=16, trial=8, longest=32), STEPS, agree)
    assert not any(play(pace, 300, 0.0, 0.2, dice)[-16:-8])
    assert pace.length == 0
    play(pace, 1000, 0.98, 0.05, dice)
    assert pace.length == 10


def test_one_stalled_round_changes_nothing() -> None:
    pace = Pace(DraftLengthConfig(run=8, trial=4, longest=8), STEPS, agree)
    for number in range(200):
        length = pace.next()
        stalled = length == 10 and number % 8 == 3
        pace.learn(length, 30.0 if stalled else 1 + 0.01 * length, [length])
    assert pace.length == 10


def test_only_rank_0_changes_minds() -> None:
    asked = []

    def never(decision: int) -> int:
        asked.append(decision)
        return STEPS

    pace = Pace(DraftLengthConfig(run=4, trial=2, longest=4), STEPS, never)
    play(pace, 40, 0.0, 0.5, torch.Generator())
    assert asked == [0, 5, 5, 5, 5]
    assert pace.length == STEPS


def test_short_chains_tell_of_long_ones() -> None:
    """Whoever passes the first two places is accepted with 3 in 4 at the third."""
    acceptance = Acceptance(4)
    for _ in range(500):
        acceptance.learn(2, [2, 0])  # half pass both
        acceptance.learn(4, [3, 0, 3, 3, 2, 0, 0, 0])
    assert acceptance.tokens(0) == 1.0
    assert acceptance.tokens(2) == pytest.approx(1 + 0.5 + 0.5)
    assert acceptance.tokens(4) == pytest.approx(1 + 0.5 + 0.5 + 0.5 * 0.75, abs=0.01)


def test_what_was_learnt_of_a_place_is_kept_while_nobody_drafts_it() -> None:
    acceptance = Acceptance(4)
    acceptance.learn(4, [4])
    for _ in range(1000):
        acceptance.learn(1, [1])
        acceptance.learn(0, [0])
    assert acceptance.tokens(4) == pytest.approx(5.0)


def test_no_batch_above_the_bound_is_drafted() -> None:
    rule = DraftLength(DraftLengthConfig(above=4), STEPS, False, CLOCK, agree)
    assert [rule.next(batch) for batch in (1, 4, 5, 48)] == [10, 10, 0, 0]


def test_results_arrive_later_than_rounds_start() -> None:
    """Under overlap scheduling; the measurement goes to the round it belongs to."""
    rule = DraftLength(DraftLengthConfig(run=2, trial=1), 2, True, CLOCK, agree)
    for _ in range(2):
        rule.ran(3, rule.next(3), CLOCK.now())
    assert rule.report()["4"]["tokens_per_second"] == {"2": None, "1": None, "0": None}
    rule.finished([2, 2, 1])
    rule.ran(4, rule.next(4), CLOCK.now())
    rule.finished([0, 0, 0])
    speeds = rule.report()["4"]["tokens_per_second"]
    assert speeds["2"] > 0 and speeds["1"] > 0 and speeds["0"] is None
    rule.finished([0, 0, 0, 0])
    assert rule.report()["4"]["tokens_per_second"]["0"] > 0
    assert list(rule.report()) == ["4"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"draft_length": 4}', "draft_length 4: a JSON object"),
        ('{"draft_length": {"abvoe": 4}}', "unknown draft_length key 'abvoe'; allowed are above,"),
        ('{"draft_length": {"above": -1}}', "draft_length above -1: a whole number from 0"),
        ('{"draft_length": {"trial": 0}}', "draft_length trial 0: a whole number from 1"),
        ('{"draft_length": {"run": true}}', "draft_length run True: a whole number from 1"),
        ('{"draft_length": {"measure": "yes"}}', "draft_length measure 'yes': true, false or null"),
        ('{"draft_length": {"run": 2000}}', "draft_length longest 1024: at least run, 2000"),
    ],
)
def test_wrong_settings_are_named(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        parse_server(given)
