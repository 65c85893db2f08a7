"""``compare.compare`` in one Triton launch."""

import torch
import triton
import triton.language as tl

from lvspec_sglang.verify.compare import Compared
from lvspec_sglang.verify.rule import MAX_STEPS


@triton.jit(do_not_specialize=["steps"])
def compare_kernel(
    drafted: tl.tensor,
    target: tl.tensor,
    logits: tl.tensor,
    scores: tl.tensor,
    rows: tl.tensor,
    stops: tl.tensor,
    never: tl.tensor,
    relevance: tl.tensor,
    log_ratio: tl.tensor,
    guarded: tl.tensor,
    score_stride: tl.tensor,
    vocab: tl.tensor,
    last: tl.tensor,
    steps: tl.tensor,
    BLOCK: tl.constexpr,
    STOPS: tl.constexpr,
    STOPS_BLOCK: tl.constexpr,
) -> None:
    """One program a request; ``never`` knows the tokens up to ``last``, and a request's ``scores``
    are ``score_stride`` from the next one's. Every other tensor is contiguous."""
    request = tl.program_id(0)
    places = tl.arange(0, BLOCK)
    inside = places < steps
    x = tl.load(drafted + request * steps + places, mask=inside, other=0)
    y = tl.load(target + request * (steps + 1) + places, mask=inside, other=0)
    line = logits + (request * (steps + 1) + places).to(tl.int64) * vocab
    of_x = tl.load(line + x, mask=inside, other=0.0).to(tl.float32)
    of_y = tl.load(line + y, mask=inside, other=0.0).to(tl.float32)
    ratio = of_x - of_y

    score = tl.load(scores + request * score_stride + places, mask=inside, other=0.0)
    known = (score == score) & (tl.abs(ratio) < float("inf"))
    slots = tl.arange(0, STOPS_BLOCK)
    stop = tl.load(stops + tl.load(rows + request) * STOPS + slots, mask=slots < STOPS, other=-1)
    ends = (x[:, None] == stop[None, :]) | (y[:, None] == stop[None, :])
    barred = tl.load(never + tl.minimum(x, last), mask=inside, other=1) != 0
    barred |= tl.load(never + tl.minimum(y, last), mask=inside, other=1) != 0
    barred |= tl.max(ends.to(tl.int32), axis=1) != 0

    at = request * steps + places
    tl.store(relevance + at, tl.where(score == score, score, 0.0), mask=inside)
    tl.store(log_ratio + at, ratio, mask=inside)
    tl.store(guarded + at, barred | (known == 0), mask=inside)


def compare_triton(
    drafted: torch.Tensor,
    target: torch.Tensor,
    logits: torch.Tensor,
    relevance: torch.Tensor,
    rows: torch.Tensor,
    stops: torch.Tensor,
    guarded: torch.Tensor,
) -> Compared:
    """``compare.compare`` in one kernel launch, without synchronising; K at most ``MAX_STEPS``."""
    batch, steps = drafted.shape
    assert steps <= MAX_STEPS, f"at most {MAX_STEPS} drafted tokens are compared, not {steps}"
    assert relevance.stride(1) == 1 or steps == 1, "relevance of a request has no gaps"
    found = Compared(
        relevance=torch.empty(batch, steps, dtype=torch.float32, device=drafted.device),
        log_ratio=torch.empty(batch, steps, dtype=torch.float32, device=drafted.device),
        guarded=torch.empty(batch, steps, dtype=torch.bool, device=drafted.device),
    )
    compare_kernel[(batch,)](
        drafted.contiguous(),
        target.contiguous(),
        logits.contiguous(),
        relevance,
        rows.contiguous(),
        stops,
        guarded,
        *found,
        relevance.stride(0),
        logits.shape[1],
        len(guarded) - 1,
        steps,
        BLOCK=MAX_STEPS,
        STOPS=stops.shape[1],
        STOPS_BLOCK=triton.next_power_of_2(stops.shape[1]),
    )
    return found
