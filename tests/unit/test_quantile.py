import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvspec_sglang.verify.quantile import MIN_HELD, ScoreRing

SIZE = 10
ROWS = 3
WIDTH = 4


def threshold(ring: ScoreRing, row: int, ratio: float) -> float:
    return ring.threshold(torch.tensor([row]), torch.tensor([ratio])).item()


def push(ring: ScoreRing, row: int, scores: list[float]) -> None:
    ring.push(torch.tensor([row]), torch.tensor([scores]), torch.tensor([len(scores)]))


def by_sorting(held: list[float], ratio: float) -> float:
    rank = math.floor(np.float32(ratio) * np.float32(len(held)))
    return sorted(held)[rank - 1] if len(held) >= MIN_HELD and rank >= 1 else -math.inf


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.0, -math.inf), (0.09, -math.inf), (0.1, 1.0), (0.7, 7.0), (0.79, 7.0), (1.0, 10.0)],
)
def test_by_example(ratio: float, expected: float) -> None:
    ring = ScoreRing(ROWS)
    push(ring, 1, [3.0, 1.0, 10.0, 2.0, 9.0, 4.0, 8.0, 5.0, 7.0, 6.0])
    assert threshold(ring, 1, ratio) == expected


def test_nothing_before_enough_scores() -> None:
    ring = ScoreRing(ROWS)
    push(ring, 0, [0.5] * (MIN_HELD - 1))
    assert threshold(ring, 0, 1.0) == -math.inf
    push(ring, 0, [0.5])
    assert threshold(ring, 0, 1.0) == 0.5


def test_the_oldest_scores_make_room() -> None:
    ring = ScoreRing(ROWS, SIZE)
    push(ring, 0, [9.0] * SIZE)
    push(ring, 0, [1.0] * (SIZE - 1))
    assert threshold(ring, 0, 0.9) == 1.0
    assert threshold(ring, 0, 1.0) == 9.0
    push(ring, 0, [1.0])
    assert threshold(ring, 0, 1.0) == 1.0


def test_only_the_first_lens_scores_are_pushed() -> None:
    ring = ScoreRing(ROWS, SIZE)
    rows = torch.tensor([2, 0])
    for _ in range(MIN_HELD):
        ring.push(rows, torch.tensor([[1.0, 5.0], [2.0, 5.0]]), torch.tensor([1, 0]))
    assert ring.threshold(rows, torch.ones(2)).tolist() == [1.0, -math.inf]
    assert ring.count.tolist() == [0, 0, MIN_HELD]


def test_a_reused_row_does_not_remember_the_request_before() -> None:
    ring = ScoreRing(ROWS, SIZE)
    for row in range(ROWS):
        push(ring, row, [0.1] * SIZE)
    ring.reset(1, torch.empty(0))
    assert threshold(ring, 1, 1.0) == -math.inf
    push(ring, 1, [0.8] * (MIN_HELD - 1))
    assert threshold(ring, 1, 1.0) == -math.inf
    push(ring, 1, [0.9])
    assert threshold(ring, 1, 1 / MIN_HELD) == np.float32(0.8)
    assert threshold(ring, 1, 1.0) == np.float32(0.9)
    assert threshold(ring, 0, 1.0) == threshold(ring, 2, 1.0) == np.float32(0.1)


def test_a_chain_longer_than_the_ring_is_refused() -> None:
    with pytest.raises(AssertionError, match="11 scores at once"):
        push(ScoreRing(ROWS, SIZE), 0, [0.0] * (SIZE + 1))


scores = st.lists(st.floats(-1, 1, width=32), min_size=WIDTH, max_size=WIDTH)
pushes = st.dictionaries(st.integers(0, ROWS - 1), st.tuples(scores, st.integers(0, WIDTH)))
resets = st.integers(0, ROWS - 1)


@settings(deadline=None)
@given(st.lists(pushes.filter(bool) | resets, max_size=20), st.floats(0, 1, width=32))
def test_equals_plain_lists(
    events: list[dict[int, tuple[list[float], int]] | int], ratio: float
) -> None:
    ring = ScoreRing(ROWS, SIZE)
    plain: list[list[float]] = [[] for _ in range(ROWS)]
    for event in events:
        if isinstance(event, int):
            ring.reset(event, torch.empty(0))
            plain[event] = []
            continue
        for row, (values, taken) in event.items():
            plain[row] = (plain[row] + values[:taken])[-SIZE:]
        values, lens = zip(*event.values(), strict=True)
        ring.push(torch.tensor(list(event)), torch.tensor(values), torch.tensor(lens))
    found = ring.threshold(torch.arange(ROWS), torch.full((ROWS,), ratio))
    assert found.tolist() == [by_sorting(held, ratio) for held in plain]


def test_the_lowest_score_a_row_holds() -> None:
    ring = ScoreRing(3, size=8)
    rows = torch.tensor([0, 2])
    ring.push(rows, torch.tensor([[0.5, 0.2, 0.1], [-3.0, 4.0, 0.0]]), torch.tensor([2, 3]))
    torch.testing.assert_close(
        ring.lowest(torch.tensor([2, 1, 0])), torch.tensor([-3.0, math.inf, 0.2])
    )
    ring.push(rows, torch.full((2, 8), 0.7), torch.tensor([8, 8]))
    torch.testing.assert_close(ring.lowest(rows), torch.tensor([0.7, 0.7]))
