"""The accept rule's two kernels against their torch references."""

from collections.abc import Callable
from typing import Any

import torch

from lvspec_sglang.bench.machine import NO_GPU, recorded, time_us
from lvspec_sglang.bench.shapes import SHAPES
from lvspec_sglang.config import RelaxConfig
from lvspec_sglang.relaxation import MAX_STOP_TOKENS, policy_row
from lvspec_sglang.verify import accept_on, compare_on
from lvspec_sglang.verify.compare import compare
from lvspec_sglang.verify.quantile import Recent, ScoreRing
from lvspec_sglang.verify.rule import DEFAULT_STEPS, Evidence, Policy, accept

STEPS = DEFAULT_STEPS
VOCAB = SHAPES["32B"].vocab


class Random:
    """Random tensors on a device, the same for every run."""

    def __init__(self, seed: int, device: str) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def share(self, *size: int) -> torch.Tensor:
        return torch.rand(size, generator=self.generator, device=self.device)

    def tokens(self, below: int, *size: int) -> torch.Tensor:
        return torch.randint(0, below, size, generator=self.generator, device=self.device)


def compare_row(batch: int, device: str) -> dict[str, Any]:
    """What the rule rests on: drafted tokens beside the target's, by bf16 logits."""
    random = Random(batch, device)
    given = (
        random.tokens(VOCAB, batch, STEPS),
        random.tokens(VOCAB, batch, STEPS + 1),
        random.share(batch * (STEPS + 1), VOCAB).bfloat16(),
        random.share(batch, STEPS + 1)[:, :STEPS],
        torch.arange(batch, device=device),
        random.tokens(VOCAB, batch, MAX_STOP_TOKENS),
        random.share(VOCAB) < 1e-3,
    )
    return _row("compare", batch, device, compare, compare_on, given)


def accept_row(batch: int, device: str) -> dict[str, Any]:
    """The accept rule of a batch, everybody relaxed."""
    random = Random(batch, device)
    target = random.tokens(20, batch, STEPS + 1)
    drafted = torch.where(random.share(batch, STEPS) < 0.7, target[:, :STEPS], 30)
    relax = RelaxConfig(
        loose_ratio=0.5, floor=0.5, visual_floor=0.7, draft_shift=STEPS, target_shift=STEPS
    )
    policy = Policy.of(policy_row(STEPS, relax).to(device).repeat(batch, 1))
    relevance, log_ratio, entropy = (random.share(batch, STEPS) for _ in range(3))
    ring, rows = ScoreRing(batch, device=device), torch.arange(batch, device=device)
    ring.push(rows, random.share(batch, ring.size), torch.full_like(rows, ring.size))
    guarded = random.share(batch, STEPS) < 0.1
    evidence = Evidence(relevance, log_ratio, entropy, guarded, Recent(ring, rows))
    return _row("accept", batch, device, accept, accept_on, (drafted, target, policy, evidence))


def _row(
    what: str,
    batch: int,
    device: str,
    reference: Callable[..., Any],
    on: Callable[[str], Callable[..., Any]],
    given: tuple[Any, ...],
) -> dict[str, Any]:
    us = time_us(lambda: reference(*given), device)
    row = {"what": f"{what}, torch", "batch": batch, "us": us}
    if device == "cpu":
        return row | {"kernel": NO_GPU}
    kernel = on(device)
    pairs = zip(kernel(*given), reference(*given), strict=True)
    equal = all(torch.equal(found, expected) for found, expected in pairs)
    kernel_us = time_us(recorded(lambda: kernel(*given)), device)
    return row | {"kernel_us": kernel_us, "kernel_equal": equal}
