"""What a round decided, from the device to ``meta_info`` and Prometheus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lvspec_sglang.counters import count
from lvspec_sglang.verify.rule import Evidence, Kind, Policy

INFO_KEY = "lvspec_tokens"
TRACE_COLUMNS = (
    "kind", "drafted", "target", "relevance", "threshold", "log_ratio", "guarded",
)  # fmt: skip
NOTHING_DRAFTED = -1

Copy = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Trace:
    """What a round's verdict rests on, kept for requests that ask to see it.

    Attributes:
        wanted: ``[batch]``, who asks.
        columns: tensors by name: ``drafted`` ``[batch, K]``, ``target`` ``[batch, K + 1]``, and if
            somebody relaxes ``relevance``, ``log_ratio``, ``guarded`` ``[batch, K]`` and
            ``threshold`` ``[batch]``.
    """

    wanted: list[bool]
    columns: dict[str, torch.Tensor]

    @classmethod
    def of_round(
        cls,
        wanted: list[bool],
        drafted: torch.Tensor,
        target: torch.Tensor,
        policy: Policy,
        evidence: Evidence | None,
    ) -> "Trace | None":
        """The trace of a round that was decided by ``rule.accept`` of the same arguments."""
        if not any(wanted):
            return None
        columns = {"drafted": drafted, "target": target}
        if evidence is not None:
            columns |= {
                "relevance": evidence.relevance,
                "threshold": policy.threshold,
                "log_ratio": evidence.log_ratio,
                "guarded": evidence.guarded,
            }
        return cls(wanted, columns)

    @classmethod
    def of_prefill(cls, wanted: list[bool], tokens: torch.Tensor) -> "Trace | None":
        """The trace of the first tokens, ``[batch]``, which nobody drafted."""
        return cls(wanted, {"target": tokens[:, None]}) if any(wanted) else None


@dataclass(frozen=True)
class Committed:
    """A round's tokens on the device: ``kinds``, ``[batch, width]`` int8, and the trace."""

    kinds: torch.Tensor
    trace: Trace | None = None

    def copy_to_host(self, copy_tensor: Copy) -> "HostCommitted":
        """Start the copies; the scheduler waits for them with the rest of the result."""
        trace = self.trace and Trace(
            self.trace.wanted, {name: copy_tensor(t) for name, t in self.trace.columns.items()}
        )
        return HostCommitted(copy_tensor(self.kinds), trace)


@dataclass(frozen=True)
class HostCommitted:
    """The same on the host."""

    kinds: torch.Tensor
    trace: Trace | None

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Count the committed tokens and append an entry for each to its request.

        An entry is a kind, or for a request that asked a record of ``TRACE_COLUMNS``.
        """
        columns = {} if self.trace is None else _as_lists(self.trace.columns)
        rows = zip(batch.reqs, commits, self.kinds.tolist(), strict=True)
        for index, (req, commit, kinds) in enumerate(rows):
            if commit is None or not commit.token_ids:
                continue
            new = kinds[: len(commit.token_ids)]
            for kind in new:
                count("tokens", kind=Kind(kind).name.lower())
            if self.trace is not None and self.trace.wanted[index]:
                new = [_record(columns, index, place, kind) for place, kind in enumerate(new)]
            if req.customized_info is None:
                req.customized_info = {}
            req.customized_info.setdefault(INFO_KEY, []).extend(new)


def _as_lists(columns: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in columns.items()}


def _record(columns: dict[str, list[Any]], request: int, place: int, kind: int) -> tuple[Any, ...]:
    """One token of the trace; None where the round says nothing of it."""
    target = columns["target"][request][place]
    drafted = columns.get("drafted")
    if drafted is None or place >= len(drafted[request]):
        return kind, NOTHING_DRAFTED, target, None, None, None, None
    said = [None, None, None, None]
    if "relevance" in columns:
        threshold = columns["threshold"][request]
        said = [
            columns["relevance"][request][place],
            threshold if threshold > float("-inf") else None,
            columns["log_ratio"][request][place],
            columns["guarded"][request][place],
        ]
    return kind, drafted[request][place], target, *said


def summarise(entries: Sequence[Any], finished: bool) -> dict[str, Any]:
    """A request's ``meta_info`` fields from the entries of its tokens so far.

    Returns:
        ``lvspec``, the number of tokens of each kind; and, once ``finished``, ``lvspec_trace`` of
        a request that asked for it: a list for each of ``TRACE_COLUMNS``, an entry a token.
    """
    kinds = [
        entry if isinstance(entry, int) else entry[0] for entry in entries if entry is not None
    ]
    info: dict[str, Any] = {"lvspec": {kind.name.lower(): kinds.count(kind) for kind in Kind}}
    records = [entry for entry in entries if isinstance(entry, (tuple, list))]
    if finished and records:
        info["lvspec_trace"] = {
            name: list(column)
            for name, column in zip(TRACE_COLUMNS, zip(*records, strict=True), strict=True)
        }
    return info
