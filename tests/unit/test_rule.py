import math
from dataclasses import dataclass, field

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvspec_sglang.verify.quantile import MIN_HELD, Recent, ScoreRing
from lvspec_sglang.verify.rule import Evidence, Kind, Policy, Verdict, accept, plain

STEPS = 8
MATCH, LOOSE, SHIFT, TARGET, BONUS = Kind


@dataclass
class Row:
    """One request: by default every draft is refused that is not the target's choice."""

    drafted: list[int]
    target: list[int]
    limit: int = 32
    ratio: float = 1.0
    threshold: float = -math.inf  # all that was scored before
    lowest: float | None = None  # of what was scored before; None: the threshold
    floor: float = 0.0
    visual_floor: float = 0.0  # or floor, where that is more
    draft_shift: int = 0
    target_shift: int = 0
    fly: bool = False
    fly_entropy_threshold: float = 0.3
    fly_window_size: int = 6
    relevance: list[float] = field(default_factory=list)
    log_ratio: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    guarded: list[bool] = field(default_factory=list)

    @property
    def log_floor(self) -> float:
        return math.log(self.floor) if self.floor else -math.inf

    @property
    def log_visual_floor(self) -> float:
        return math.log(max(self.floor, self.visual_floor)) if self.floor else -math.inf


def decide(rows: list[Row], relaxed: bool = True) -> Verdict:
    def column(name: str, fill: float | bool) -> torch.Tensor:
        return torch.tensor([getattr(row, name) or [fill] * len(row.drafted) for row in rows])

    drafted = torch.tensor([row.drafted for row in rows])
    target = torch.tensor([row.target for row in rows])
    table = [[float(getattr(row, name)) for name in Policy._fields] for row in rows]
    policy = Policy.of(torch.tensor(table))
    scored = torch.tensor(
        [
            [row.threshold if row.lowest is None else row.lowest] + [row.threshold] * MIN_HELD
            for row in rows
        ]
    )
    ring, index = ScoreRing(len(rows)), torch.arange(len(rows))
    ring.push(index, scored, torch.full_like(index, MIN_HELD + 1))
    evidence = Evidence(
        column("relevance", 0.5),
        column("log_ratio", 0.0),
        column("entropy", 0.0),
        column("guarded", False),
        Recent(ring, index),
    )
    return accept(drafted, target, policy, evidence if relaxed else None)


def committed(verdict: Verdict) -> list[list[tuple[int, int]]]:
    """Each request's committed (token, kind) pairs."""
    return [
        list(zip(tokens[:n], kinds[:n], strict=True))
        for tokens, kinds, n in zip(
            verdict.tokens.tolist(),
            verdict.kinds.tolist(),
            verdict.accept_lens.tolist(),
            strict=True,
        )
    ]


def one(row: Row) -> list[tuple[int, int]]:
    return committed(decide([row]))[0]


def test_strict() -> None:
    chain = [7, 8, 9]
    rows = [
        Row(chain, [7, 8, 9, 4]),
        Row(chain, [7, 5, 9, 4]),
        Row(chain, [3, 8, 9, 4]),
        Row(chain, [7, 8, 9, 4], limit=2),
        Row(chain, [7, 8, 9, 4], limit=0),
    ]
    expected = [
        [(7, MATCH), (8, MATCH), (9, MATCH), (4, BONUS)],
        [(7, MATCH), (5, TARGET)],
        [(3, TARGET)],
        [(7, MATCH), (8, MATCH), (9, TARGET)],
        [(7, TARGET)],
    ]
    for relaxed in (False, True):
        verdict = decide(rows, relaxed)
        assert committed(verdict) == expected
        assert [value.dtype for value in verdict] == [
            torch.int32, torch.int64, torch.int8, torch.float32,
        ]  # fmt: skip


def test_loose_up_to_the_threshold() -> None:
    row = Row([1, 2, 3], [6, 2, 7, 8], threshold=0.25, relevance=[0.25, 0.9, 0.26])
    assert one(row) == [(1, LOOSE), (2, MATCH), (7, TARGET)]
    assert decide([row]).threshold.tolist() == [0.25]
    row.ratio = 0.0
    assert one(row) == [(6, TARGET)]
    assert decide([row]).threshold.tolist() == [-math.inf]


def test_a_plain_round_commits_the_targets_first_token() -> None:
    verdict = plain(torch.tensor([[5], [6]]))
    assert committed(verdict) == [[(5, TARGET)], [(6, TARGET)]]
    assert verdict.threshold.tolist() == [-math.inf] * 2


def test_limit_holds_back_a_loose_token() -> None:
    assert one(Row([1, 2], [6, 7, 8], threshold=1.0, limit=1)) == [(1, LOOSE), (7, TARGET)]


def test_draft_shift_looks_for_the_draft_among_the_targets() -> None:
    drafted, target = [1, 2, 3, 4], [5, 2, 3, 1, 9]
    assert one(Row(drafted, target, draft_shift=2)) == [(5, TARGET)]
    assert one(Row(drafted, target, target_shift=9)) == [(5, TARGET)]
    accepted = [(1, SHIFT), (2, MATCH), (3, MATCH), (1, TARGET)]
    assert one(Row(drafted, target, draft_shift=3)) == accepted


def test_target_shift_looks_for_the_target_among_the_drafts() -> None:
    drafted, target = [1, 2, 5, 4], [5, 2, 6, 4, 9]
    assert one(Row(drafted, target, target_shift=1)) == [(5, TARGET)]
    assert one(Row(drafted, target, draft_shift=9)) == [(5, TARGET)]
    accepted = [(1, SHIFT), (2, MATCH), (6, TARGET)]
    assert one(Row(drafted, target, target_shift=2)) == accepted


def test_shift_looks_back_and_not_at_the_bonus() -> None:
    assert one(Row([1, 1], [1, 5, 9], draft_shift=1)) == [(1, MATCH), (1, SHIFT), (9, BONUS)]
    assert one(Row([1, 9], [1, 5, 9], draft_shift=1)) == [(1, MATCH), (5, TARGET)]


def test_floor_bounds_both_relaxations() -> None:
    log_ratio = [math.log(0.2), math.log(0.4)]
    loose = Row([1, 2], [6, 7, 8], threshold=1.0, floor=0.3, log_ratio=log_ratio)
    assert one(loose) == [(6, TARGET)]
    loose.log_ratio = log_ratio[::-1]
    assert one(loose) == [(1, LOOSE), (7, TARGET)]
    swapped = Row([1, 2], [2, 1, 8], draft_shift=1, floor=0.3, log_ratio=log_ratio)
    assert one(swapped) == [(2, TARGET)]
    swapped.log_ratio = log_ratio[::-1]
    assert one(swapped) == [(1, SHIFT), (1, TARGET)]


def test_the_floor_rises_with_relevance() -> None:
    """From 0.01 at the lowest score to 1 at the threshold, 0.1 half-way."""
    rising = {"threshold": 0.9, "lowest": 0.1, "floor": 0.01, "visual_floor": 1.0}

    def passes(relevance: float, share: float) -> bool:
        row = Row([1], [6, 7], relevance=[relevance], log_ratio=[math.log(share)], **rising)
        return one(row)[0] == (1, LOOSE)

    assert passes(0.1, 0.011) and not passes(0.1, 0.009)
    assert passes(0.0, 0.011), "no score of the ring's is lower: the floor is not"
    assert passes(0.5, 0.101) and not passes(0.5, 0.099)
    assert passes(0.9, 1.0) and not passes(0.9, 0.99)
    rising["floor"] = 0.0
    assert passes(0.9, 1e-9), "without a floor there is none"
    rising |= {"floor": 0.3, "visual_floor": 0.3}
    assert passes(0.9, 0.31) and not passes(0.1, 0.29)
    rising |= {"floor": 0.01, "visual_floor": 0.5, "lowest": 0.9}
    assert passes(0.9, 0.51) and not passes(0.9, 0.49), "the threshold is the lowest score"


def test_guards_hold_against_every_relaxation_but_let_matches_pass() -> None:
    relaxed = {"threshold": 1.0, "draft_shift": 1, "target_shift": 1}
    row = Row([1, 2, 3], [1, 3, 2, 8], guarded=[True, True, False], **relaxed)
    assert one(row) == [(1, MATCH), (3, TARGET)]
    row.guarded = [True, False, True]
    assert one(row) == [(1, MATCH), (2, LOOSE), (2, TARGET)]


def test_fly_wants_an_uncertain_target_and_six_matches() -> None:
    drafted, target = [1, 2, 3, 4, 5, 6, 7, 8], [1, 9, 3, 4, 5, 6, 7, 8, 0]
    through = [(1, MATCH), (2, LOOSE), *((token, MATCH) for token in range(3, 9)), (0, BONUS)]
    row = Row(drafted, target, fly=True, entropy=[0.3] * 8)
    assert one(row) == through
    row.entropy = [0.29] * 8
    assert one(row) == [(1, MATCH), (9, TARGET)]
    broken = Row(drafted, [*target[:7], 9, 0], fly=True, entropy=[0.9] * 8)
    assert one(broken) == [(1, MATCH), (9, TARGET)]
    short = Row(drafted[:7], target[:8], fly=True, entropy=[0.9] * 7)
    assert one(short) == [(1, MATCH), (9, TARGET)]
    short.fly_window_size = 5
    assert one(short)[1] == (2, LOOSE)
    short.fly_entropy_threshold = 0.91
    assert one(short) == [(1, MATCH), (9, TARGET)]


def test_fly_replaces_the_loose_rule() -> None:
    assert one(Row([1], [5, 8], fly=True, threshold=1.0)) == [(5, TARGET)]


def test_requests_of_a_batch_do_not_meet() -> None:
    rows = [
        Row([1, 2], [2, 1, 8], threshold=1.0),
        Row([1, 2], [2, 1, 8], draft_shift=1),
        Row([1, 2], [2, 1, 8]),
    ]
    assert committed(decide(rows)) == [one(row) for row in rows]


def wordy(row: Row, i: int) -> bool:
    if row.relevance[i] > row.threshold or row.floor == 0:
        return row.relevance[i] <= row.threshold
    height = 1.0
    if row.lowest is not None:
        height = (row.relevance[i] - row.lowest) / (row.threshold - row.lowest)
    rise = row.log_visual_floor - row.log_floor
    return row.log_ratio[i] >= row.log_floor + max(0.0, height) * rise


def by_loop(row: Row) -> list[tuple[int, int]]:
    """The rule, a token at a time."""
    steps = len(row.drafted)
    out: list[tuple[int, int]] = []
    for i, (x, y) in enumerate(zip(row.drafted, row.target[:steps], strict=True)):
        end = i + 1 + row.fly_window_size
        followed = end <= steps and row.drafted[i + 1 : end] == row.target[i + 1 : end]
        unsure = row.entropy[i] >= row.fly_entropy_threshold
        lenient = unsure and followed if row.fly else wordy(row, i)
        near = [(row.drafted[j], row.target[j], abs(i - j)) for j in range(steps)]
        shifted = any(t == x and d <= row.draft_shift for _, t, d in near)
        shifted |= any(t == y and d <= row.target_shift for t, _, d in near)
        plausible = row.log_ratio[i] >= row.log_floor
        relaxable = plausible and not row.guarded[i]
        if i >= row.limit:
            return [*out, (y, TARGET)]
        if x == y:
            out.append((x, MATCH))
        elif relaxable and lenient:
            out.append((x, LOOSE))
        elif relaxable and shifted:
            out.append((x, SHIFT))
        else:
            return [*out, (y, TARGET)]
    return [*out, (row.target[steps], BONUS)]


def chain(values: st.SearchStrategy, size: int = STEPS) -> st.SearchStrategy:
    return st.lists(values, min_size=size, max_size=size)


words = st.integers(0, 5)
shares = st.sampled_from([0.0, 0.29, 0.31, 0.7, 1.0])
strict_row = st.builds(Row, chain(words), chain(words, STEPS + 1), st.integers(0, STEPS))


@st.composite
def relaxed_rows(draw: st.DrawFn) -> Row:
    target = draw(chain(words, STEPS + 1))
    mistakes = draw(st.dictionaries(st.integers(0, STEPS - 1), words, max_size=4))
    threshold = draw(st.sampled_from([-math.inf, 0.29, 0.7]))
    floor = draw(st.sampled_from([0.0, 0.3, 1.0]))
    return Row(
        drafted=[mistakes.get(i, token) for i, token in enumerate(target[:STEPS])],
        target=target,
        limit=draw(st.sampled_from([0, 3, STEPS, STEPS + 1])),
        threshold=threshold,
        lowest=draw(st.sampled_from([None, 0.0, 0.1])) if threshold > -math.inf else None,
        floor=floor,
        visual_floor=draw(st.sampled_from([0.0, 0.5, 0.7, 1.0])),
        draft_shift=draw(st.integers(0, 3)),
        target_shift=draw(st.integers(0, 3)),
        fly=draw(st.booleans()),
        fly_entropy_threshold=draw(shares),
        fly_window_size=draw(st.integers(0, 6)),
        relevance=draw(chain(shares)),
        log_ratio=draw(chain(st.sampled_from([-9.0, -0.5, 0.0]))),
        entropy=draw(chain(shares)),
        guarded=draw(chain(st.sampled_from([False, False, False, True]))),
    )


@settings(deadline=None)
@given(st.lists(strict_row, min_size=1, max_size=4))
def test_strict_equals_the_loop(rows: list[Row]) -> None:
    expected = []
    for row in rows:
        out = []
        for i, y in enumerate(row.target):
            out.append(y)
            if i >= row.limit or row.drafted[i] != y:
                break
        expected.append(out)
    tokens = [[token for token, _ in row] for row in committed(decide(rows, relaxed=False))]
    assert tokens == expected


@settings(deadline=None)
@given(st.lists(relaxed_rows(), min_size=1, max_size=4))
def test_relaxed_equals_the_loop(rows: list[Row]) -> None:
    assert committed(decide(rows)) == [by_loop(row) for row in rows]
