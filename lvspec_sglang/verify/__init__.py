"""The accept rule and what it rests on: torch references, a Triton launch each, the running
quantile, the guards."""

from collections.abc import Callable

from lvspec_sglang.verify.compare import Compared, compare
from lvspec_sglang.verify.rule import Verdict, accept


def accept_on(device: str) -> Callable[..., Verdict]:
    """The accept rule: one kernel on a GPU, else the reference."""
    if device == "cuda":
        from lvspec_sglang.verify.kernel import accept_triton

        return accept_triton
    return accept


def compare_on(device: str) -> Callable[..., Compared]:
    """What the accept rule rests on: one kernel on a GPU, else the reference."""
    if device == "cuda":
        from lvspec_sglang.verify.compare_kernel import compare_triton

        return compare_triton
    return compare
