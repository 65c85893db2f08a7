"""Compare the accept kernel with its reference on random rounds: ``verify_program.py DEVICE``.

A program of its own, because Triton chooses interpreter or compiler when it is imported.
"""

import sys

import torch

from lvspec_sglang.verify.kernel import accept_triton
from lvspec_sglang.verify.quantile import MIN_HELD, Recent, ScoreRing
from lvspec_sglang.verify.rule import Evidence, Kind, Policy, Verdict, accept

STEPS = (1, 2, 3, 5, 8, 10, 16, 31, 32)
ROUNDS_EACH = 16
RING_ROWS = 9


class Dice:
    """Random tensors on a device from one seed."""

    def __init__(self, seed: int, device: str) -> None:
        self.device = device
        self.generator = torch.Generator().manual_seed(seed)

    def below(self, end: int, *shape: int) -> torch.Tensor:
        return torch.randint(end, shape, generator=self.generator).to(self.device)

    def share(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator).to(self.device)

    def one_of(self, values: list[float], *shape: int) -> torch.Tensor:
        return torch.tensor(values, device=self.device)[self.below(len(values), *shape)]


def random_chain(dice: Dice, batch: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A chain that mostly matches, so that rounds end everywhere and fly's window fills."""
    target = dice.below(4 + steps, batch, steps + 1)
    guess = dice.below(4 + steps, batch, steps)
    return torch.where(dice.share(batch, steps) < 0.75, target[:, :steps], guess), target


def random_policy(dice: Dice, batch: int, steps: int) -> Policy:
    floor = dice.one_of([0.0, 0.1, 0.3, 1.0], batch)
    policy = Policy(
        limit=torch.where(dice.share(batch) < 0.7, steps, dice.below(steps + 1, batch)),
        ratio=dice.one_of([0.0, 0.0, 0.1, 0.5, 0.7, 1.0], batch),
        log_floor=floor.log(),
        log_visual_floor=floor.maximum(dice.one_of([0.0, 0.0, 0.6, 1.0], batch)).log(),
        draft_shift=dice.below(4, batch),
        target_shift=dice.below(4, batch),
        fly=dice.share(batch) < 0.3,
        fly_entropy_threshold=dice.one_of([0.0, 0.3, 0.9], batch),
        fly_window_size=dice.below(7, batch),
    )
    return Policy.of(torch.stack([column.float() for column in policy], dim=1))


def random_evidence(dice: Dice, policy: Policy, steps: int, recent: Recent) -> Evidence:
    """Scores that often lie exactly on their bounds."""
    shape = (policy.limit.shape[0], steps)
    log_share = dice.share(*shape).log()
    log_ratio = torch.where(dice.share(*shape) < 0.5, policy.log_floor[:, None], log_share)
    return Evidence(
        relevance=dice.one_of([0.0, 0.3, 0.5, 0.7, 0.9], *shape),
        log_ratio=log_ratio,
        entropy=dice.one_of([0.0, 0.3, 0.31, 0.9], *shape),
        guarded=dice.share(*shape) < 0.1,
        recent=recent,
    )


def random_recent(dice: Dice, batch: int, size: int) -> Recent:
    """A ring whose rows hold nothing, little, or have gone round."""
    ring = ScoreRing(RING_ROWS, size, dice.device)
    rows = torch.arange(RING_ROWS, device=dice.device)
    for _ in range(3):
        scores = dice.one_of([0.0, 0.3, 0.5, 0.7, 0.9], RING_ROWS, size)
        ring.push(rows, scores, dice.below(size + 1, RING_ROWS))
    for row, held in ((0, 0), (1, MIN_HELD - 1), (2, MIN_HELD)):
        ring.reset(row, ring.scores[row, :held])
    taken = torch.randperm(RING_ROWS, generator=dice.generator)[:batch].to(dice.device)
    return Recent(ring, taken)


def assert_same(found: Verdict, expected: Verdict, case: str) -> None:
    for name, one, other in zip(Verdict._fields, found, expected, strict=True):
        assert one.dtype == other.dtype, (case, name)
        assert torch.equal(one, other), (case, name, one, other)


def main(device: str) -> None:
    seen = torch.zeros(len(Kind), dtype=torch.int64, device=device)
    for seed in range(ROUNDS_EACH * len(STEPS)):
        dice = Dice(seed, device)
        steps, batch = STEPS[seed % len(STEPS)], seed % 6
        drafted, target = random_chain(dice, batch, steps)
        policy = random_policy(dice, batch, steps)
        recent = random_recent(dice, batch, (10, 64)[seed % 2])
        evidence = random_evidence(dice, policy, steps, recent)

        expected = accept(drafted, target, policy, evidence)
        case = f"seed {seed}, {batch} requests, K {steps}"
        assert_same(accept_triton(drafted, target, policy, evidence), expected, case)
        # A view with strides of its own, as a column slice of a wider buffer is.
        wide = torch.cat([drafted, drafted], dim=1)[:, :steps]
        assert_same(
            accept_triton(wide, target, policy, None),
            accept(drafted, target, policy, None),
            f"{case}, no evidence",
        )
        is_committed = torch.arange(steps + 1, device=device) < expected.accept_lens[:, None]
        seen += expected.kinds[is_committed].long().bincount(minlength=len(Kind))
    assert seen.min() >= 20, f"the rounds hardly met some kinds: {seen.tolist()}"
    print(f"equal; committed by kind: {seen.tolist()}")


if __name__ == "__main__":
    main(sys.argv[1])
