"""Hold the comparing kernel to its reference on random rounds: ``compare_program.py DEVICE``."""

import sys

import torch

from lvspec_sglang.verify.compare import Compared, compare
from lvspec_sglang.verify.compare_kernel import compare_triton
from tests.kernels.verify_program import STEPS, Dice, random_chain

ROUNDS_EACH = 12
ROWS, STOPS = 9, 16
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def random_round(dice: Dice, batch: int, steps: int, dtype: torch.dtype) -> tuple:  # type: ignore[type-arg]
    """The arguments of ``compare``, numbers that are none among them."""
    drafted, target = random_chain(dice, batch, steps)
    vocab = 4 + steps
    logits = 8 * dice.share(batch * (steps + 1), vocab) - 4
    logits[dice.share(*logits.shape) < 0.05] = -torch.inf
    logits[dice.share(*logits.shape) < 0.02] = torch.nan
    scores = dice.one_of([0.0, 0.3, torch.nan, torch.inf, 0.9, -torch.inf, 0.5], batch, steps + 1)
    stops = torch.where(dice.share(ROWS, STOPS) < 0.05, dice.below(vocab, ROWS, STOPS), -1)
    rows = torch.randperm(ROWS, generator=dice.generator)[:batch].to(dice.device)
    guarded = dice.share(vocab - 2) < 0.2  # the last two tokens are beyond it
    first = int(dice.below(2))
    relevance = scores[:, first : first + steps]
    return drafted, target, logits.to(dtype), relevance, rows, stops, guarded


def assert_same(found: Compared, expected: Compared, case: str) -> None:
    for name, one, other in zip(Compared._fields, found, expected, strict=True):
        assert one.dtype == other.dtype, (case, name)
        torch.testing.assert_close(
            one,
            other,
            rtol=0,
            atol=0,
            equal_nan=True,
            msg=lambda text, at=name: f"{case} {at}: {text}",
        )


def main(device: str) -> None:
    guarded = total = 0
    for seed in range(ROUNDS_EACH * len(STEPS)):
        dice = Dice(seed, device)
        steps, batch = STEPS[seed % len(STEPS)], 1 + seed % 5
        given = random_round(dice, batch, steps, DTYPES[seed % len(DTYPES)])
        expected = compare(*given)
        assert_same(compare_triton(*given), expected, f"seed {seed}, {batch} requests, K {steps}")
        guarded, total = guarded + int(expected.guarded.sum()), total + expected.guarded.numel()
    assert 0.2 < guarded / total < 0.9, f"{guarded} of {total} guarded: hardly a difference to see"
    print(f"equal; {guarded} of {total} guarded")


if __name__ == "__main__":
    main(sys.argv[1])
