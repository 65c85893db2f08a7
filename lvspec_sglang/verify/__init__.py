"""The accept rule: its torch reference, one Triton launch, the running quantile, the guards."""

from collections.abc import Callable

from lvspec_sglang.verify.rule import Verdict, accept


def accept_on(device: str) -> Callable[..., Verdict]:
    """The accept rule: one kernel on a GPU, else the reference."""
    if device == "cuda":
        from lvspec_sglang.verify.kernel import accept_triton

        return accept_triton
    return accept
