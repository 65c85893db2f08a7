"""Why each token was committed, from the device to ``meta_info`` and Prometheus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from prometheus_client import Counter

from lvspec_sglang.verify.rule import Kind

TOKENS = Counter("lvspec_tokens", "Tokens committed, by the reason they were committed", ["kind"])


@dataclass(frozen=True)
class CommittedKinds:
    """A round's kinds on the device, ``[batch, width]`` int8."""

    kinds: torch.Tensor

    def copy_to_host(
        self, copy_tensor: Callable[[torch.Tensor], torch.Tensor]
    ) -> "HostCommittedKinds":
        """Start the copy; the scheduler waits for it with the rest of the result."""
        return HostCommittedKinds(copy_tensor(self.kinds))


@dataclass(frozen=True)
class HostCommittedKinds:
    """The same on the host."""

    kinds: torch.Tensor

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Append to each request's ``lvspec_kinds``, a number a committed token."""
        for req, commit, kinds in zip(batch.reqs, commits, self.kinds.tolist(), strict=True):
            if commit is None or not commit.token_ids:
                continue
            new = kinds[: len(commit.token_ids)]
            if req.customized_info is None:
                req.customized_info = {}
            req.customized_info.setdefault("lvspec_kinds", []).extend(new)
            for kind in new:
                TOKENS.labels(Kind(kind).name.lower()).inc()
