"""The accept rule in one Triton launch, equal to ``rule.accept`` bit for bit."""

import torch
import triton
import triton.language as tl

from lvspec_sglang.verify.quantile import MIN_HELD
from lvspec_sglang.verify.rule import MAX_STEPS, Evidence, Kind, Policy, Verdict

_MATCH = tl.constexpr(int(Kind.MATCH))
_LOOSE = tl.constexpr(int(Kind.LOOSE))
_SHIFT = tl.constexpr(int(Kind.SHIFT))
_TARGET = tl.constexpr(int(Kind.TARGET))
_BONUS = tl.constexpr(int(Kind.BONUS))
_MIN_HELD = tl.constexpr(MIN_HELD)


@triton.jit
def _lowest_and_quantile(
    scores: tl.tensor, count: tl.tensor, ratio: tl.tensor, SIZE: tl.constexpr, BLOCK: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """``ScoreRing.lowest`` and ``running_quantile`` of the row at pointer ``scores``.

    The quantile is found by counting, not by sorting.
    """
    held = tl.minimum(count, SIZE)
    places = tl.arange(0, BLOCK)
    value = tl.load(scores + places, mask=places < held, other=float("inf"))
    at_most = tl.sum((value[None, :] <= value[:, None]).to(tl.int32), axis=1)
    rank = tl.floor(ratio * held.to(tl.float32)).to(tl.int32)
    smallest = tl.min(tl.where(at_most >= rank, value, float("inf")), axis=0)
    quantile = tl.where((rank >= 1) & (held >= _MIN_HELD), smallest, float("-inf"))
    return tl.min(value, axis=0), quantile


@triton.jit(do_not_specialize=["steps"])
def accept_kernel(
    drafted: tl.tensor,
    target: tl.tensor,
    limit: tl.tensor,
    ratio: tl.tensor,
    log_floor: tl.tensor,
    log_visual_floor: tl.tensor,
    draft_shift: tl.tensor,
    target_shift: tl.tensor,
    fly: tl.tensor,
    fly_entropy_threshold: tl.tensor,
    fly_window_size: tl.tensor,
    relevance: tl.tensor | None,
    log_ratio: tl.tensor | None,
    entropy: tl.tensor | None,
    guarded: tl.tensor | None,
    ring_scores: tl.tensor | None,
    ring_count: tl.tensor | None,
    ring_rows: tl.tensor | None,
    policy_stride: tl.tensor,
    accept_lens: tl.tensor,
    tokens: tl.tensor,
    kinds: tl.tensor,
    threshold: tl.tensor,
    steps: tl.tensor,
    BLOCK: tl.constexpr,
    RING_SIZE: tl.constexpr,
    RING_BLOCK: tl.constexpr,
) -> None:
    """One program a request. ``limit`` to ``fly_window_size`` are the columns of a table whose rows
    are ``policy_stride`` apart; every other tensor is contiguous."""
    request = tl.program_id(0)
    policy = request * policy_stride
    drafted += request * steps
    target += request * (steps + 1)
    tokens += request * (steps + 1)
    kinds += request * (steps + 1)
    places = tl.arange(0, BLOCK)
    inside = places < steps
    x = tl.load(drafted + places, mask=inside, other=0)
    y = tl.load(target + places, mask=inside, other=0)

    passed = (x == y) & inside
    most = float("-inf")
    kind = tl.full([BLOCK], _MATCH, tl.int8)
    if relevance is not None:
        at = request * steps + places
        may_not = tl.load(guarded + at, mask=inside, other=1)
        likely = tl.load(log_ratio + at, mask=inside, other=0.0)
        low_floor = tl.load(log_floor + policy)
        allowed = inside & (passed == 0) & (may_not == 0) & (likely >= low_floor)

        ahead = places[None, :] - places[:, None]
        window = tl.load(fly_window_size + policy).to(tl.int32)
        in_window = (ahead >= 1) & (ahead <= window)
        later = tl.sum((in_window & passed[None, :]).to(tl.int32), axis=1) == window
        unsure = tl.load(entropy + at, mask=inside, other=0.0)
        uncertain = unsure >= tl.load(fly_entropy_threshold + policy)
        row = tl.load(ring_rows + request)
        lowest, most = _lowest_and_quantile(
            ring_scores + row * RING_SIZE,
            tl.load(ring_count + row),
            tl.load(ratio + policy),
            RING_SIZE,
            RING_BLOCK,
        )
        visual = tl.load(relevance + at, mask=inside, other=0.0)
        high_floor = tl.load(log_visual_floor + policy)
        span = most - lowest
        depth = tl.minimum(tl.maximum(most - visual, 0.0), span)
        sloped = (likely - high_floor) * span >= depth * (low_floor - high_floor)
        reached = tl.where(span > 0, sloped, likely >= high_floor)
        within = visual <= most
        wordy = within & tl.where(low_floor > float("-inf"), reached, within)
        by_fly = tl.load(fly + policy).to(tl.int32) != 0
        loose = allowed & ((by_fly & later & uncertain) | ((by_fly == 0) & wordy))

        same = (x[:, None] == y[None, :]) & inside[:, None] & inside[None, :]
        distance = tl.abs(ahead)
        near_x = same & (distance <= tl.load(draft_shift + policy).to(tl.int32))
        near_y = same & (distance <= tl.load(target_shift + policy).to(tl.int32))
        x_among_targets = tl.max(near_x.to(tl.int32), axis=1)
        y_among_drafts = tl.max(near_y.to(tl.int32), axis=0)
        shift = allowed & (loose == 0) & ((x_among_targets | y_among_drafts) != 0)

        passed = passed | loose | shift
        kind = tl.where(loose, _LOOSE, tl.where(shift, _SHIFT, kind))

    passed = passed & (places < tl.load(limit + policy).to(tl.int32))
    accepted = tl.min(tl.where(passed, steps, places), axis=0)
    is_draft = places < accepted
    tl.store(threshold + request, most)
    tl.store(accept_lens + request, accepted + 1)
    tl.store(tokens + places, tl.where(is_draft, x, y), mask=inside)
    tl.store(tokens + steps, tl.load(target + steps))
    tl.store(kinds + places, tl.where(is_draft, kind, _TARGET), mask=inside)
    tl.store(kinds + steps, _BONUS)


def accept_triton(
    drafted: torch.Tensor,
    target: torch.Tensor,
    policy: Policy,
    evidence: Evidence | None,
) -> Verdict:
    """``rule.accept`` in one kernel launch, without synchronising.

    Args:
        drafted, target, policy, evidence: as in ``rule.accept``; K at most ``MAX_STEPS``.
    """
    batch, steps = drafted.shape
    assert steps <= MAX_STEPS, f"the kernel decides at most {MAX_STEPS} drafted tokens, not {steps}"
    stride = policy.limit.stride(0)
    assert all(column.stride(0) == stride for column in policy), "columns of one table"
    accept_lens = torch.empty(batch, dtype=torch.int32, device=drafted.device)
    tokens = torch.empty(batch, steps + 1, dtype=torch.int64, device=drafted.device)
    kinds = torch.empty(batch, steps + 1, dtype=torch.int8, device=drafted.device)
    threshold = torch.empty(batch, dtype=torch.float32, device=drafted.device)
    size = 1
    said: tuple[torch.Tensor | None, ...] = (None,) * 7
    if evidence is not None:
        *columns, (ring, rows) = evidence
        size = ring.size
        said = (*(c.contiguous() for c in columns), ring.scores, ring.count, rows.contiguous())
    accept_kernel[(batch,)](
        drafted.contiguous(),
        target.contiguous(),
        *policy,
        *said,
        stride,
        accept_lens,
        tokens,
        kinds,
        threshold,
        steps,
        BLOCK=MAX_STEPS,
        RING_SIZE=size,
        RING_BLOCK=triton.next_power_of_2(size),
    )
    return Verdict(accept_lens, tokens, kinds, threshold)
