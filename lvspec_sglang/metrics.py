"""What a round decided, from the device to ``meta_info`` and Prometheus."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

import torch

from lvspec_sglang.counters import count, observe, set_gauge
from lvspec_sglang.verify.rule import Evidence, Kind, Verdict, plain

INFO_KEY = "lvspec_tokens"
TRACE_COLUMNS = (
    "kind", "drafted", "target", "relevance", "threshold", "log_ratio", "guarded",
)  # fmt: skip
NOTHING_DRAFTED = -1

Copy = Callable[[torch.Tensor], torch.Tensor]


class Asked(NamedTuple):
    """What is known of the requests of a batch, an entry each.

    Attributes:
        speculated: whether the draft follows it.
        relaxed: whether it is verified loosely.
        traced: whether it asks for the trace of its tokens.
    """

    speculated: list[bool]
    relaxed: list[bool]
    traced: list[bool]


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
        verdict: Verdict,
        evidence: Evidence | None,
    ) -> "Trace | None":
        """The trace of a round, ``verdict`` what ``rule.accept`` made of the rest."""
        if not any(wanted):
            return None
        columns = {"drafted": drafted, "target": target}
        if evidence is not None:
            columns |= {
                "relevance": evidence.relevance,
                "threshold": verdict.threshold,
                "log_ratio": evidence.log_ratio,
                "guarded": evidence.guarded,
            }
        return cls(wanted, columns)


class Scores(NamedTuple):
    """What relaxes a round.

    Attributes:
        relaxed: ``[batch]``, whose.
        relevance: ``[batch, K]`` float32.
        threshold: ``[batch]`` float32, -inf where nothing is loose yet.
    """

    relaxed: list[bool]
    relevance: torch.Tensor
    threshold: torch.Tensor

    def observe(self, lengths: Sequence[int]) -> None:
        """Add to the metrics, ``lengths`` committed tokens of each request; on the host."""
        whose = [index for index, relaxed in enumerate(self.relaxed) if relaxed]
        relevance, threshold = self.relevance.tolist(), self.threshold.tolist()
        observe("relevance", [s for index in whose for s in relevance[index][: lengths[index]]])
        known = [threshold[index] for index in whose if threshold[index] > float("-inf")]
        if known:
            set_gauge("threshold", fmean(known))


@dataclass(frozen=True)
class Committed:
    """What a prefill or a round committed, first on the device, then on the host.

    Attributes:
        kinds: ``[batch, width]`` int8.
        trace: what the verdict rests on, for those who ask.
        drafted: ``[batch]``, for whom; None for a prefill.
        scores: where somebody relaxes.
        readers: of each video of a drafted round, how many requests read it.
        prefill_seconds: tells, on the host, how long the draft's prefill before the round took.
    """

    kinds: torch.Tensor
    trace: Trace | None = None
    drafted: Sequence[bool] | None = None
    scores: Scores | None = None
    readers: Sequence[int] = ()
    prefill_seconds: Callable[[], float] | None = None

    @classmethod
    def of_prefill(cls, asked: Asked, tokens: torch.Tensor) -> "Committed":
        """Of the first tokens, ``[batch]``, which nobody drafted."""
        first = tokens[:, None]
        trace = Trace(asked.traced, {"target": first}) if any(asked.traced) else None
        return cls(plain(first).kinds, trace)

    @classmethod
    def of_round(
        cls,
        asked: Asked,
        drafted: torch.Tensor,
        target: torch.Tensor,
        verdict: Verdict,
        evidence: Evidence | None,
        readers: Sequence[int],
        prefill_seconds: Callable[[], float] | None,
    ) -> "Committed":
        """Of a round, ``verdict`` what ``rule.accept`` made of ``drafted``, ``[batch, K]``, the
        ``target``'s own tokens, ``[batch, K + 1]``, and the ``evidence``."""
        scores = evidence and Scores(asked.relaxed, evidence.relevance, verdict.threshold)
        drafts = drafted.shape[1] > 0
        return cls(
            verdict.kinds,
            Trace.of_round(asked.traced, drafted, target, verdict, evidence),
            [drafts and speculated for speculated in asked.speculated],
            scores,
            readers,
            prefill_seconds,
        )

    def copy_to_host(self, copy: Copy) -> "Committed":
        """Start the copies; the scheduler waits for them with the rest of the result."""
        trace = self.trace and Trace(
            self.trace.wanted, {name: copy(tensor) for name, tensor in self.trace.columns.items()}
        )
        scores = self.scores and self.scores._replace(
            relevance=copy(self.scores.relevance), threshold=copy(self.scores.threshold)
        )
        return replace(self, kinds=copy(self.kinds), trace=trace, scores=scores)

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Count the committed tokens and append an entry for each to its request.

        An entry is a kind, or for a request that asked a record of ``TRACE_COLUMNS``.
        """
        columns = {} if self.trace is None else _as_lists(self.trace.columns)
        rows = zip(batch.reqs, commits, self.kinds.tolist(), strict=True)
        lengths = []
        for index, (req, commit, kinds) in enumerate(rows):
            new = kinds[: len(commit.token_ids)] if commit is not None else []
            lengths.append(len(new))
            if not new:
                continue
            for kind in set(new):
                count("tokens", new.count(kind), kind=Kind(kind).name.lower())
            if self.trace is not None and self.trace.wanted[index]:
                judged = self.scores is not None and self.scores.relaxed[index]
                new = [
                    _record(columns, index, place, kind, judged) for place, kind in enumerate(new)
                ]
            if req.customized_info is None:
                req.customized_info = {}
            req.customized_info.setdefault(INFO_KEY, []).extend(new)
        self._observe(lengths)

    def _observe(self, lengths: Sequence[int]) -> None:
        if self.drafted is not None:
            rounds = [(n, drafted) for n, drafted in zip(lengths, self.drafted, strict=True) if n]
            for drafted, many in Counter(drafted for _, drafted in rounds).items():
                count("rounds", many, decoding="drafted" if drafted else "plain")
            accepted = [length for length, drafted in rounds if drafted]
            observe("accept_length", accepted)
            if any(self.drafted):
                count("drafted_tokens", len(accepted) * (self.kinds.shape[1] - 1))
                observe("shared_prefix_groups", self.readers)
        if self.scores is not None:
            self.scores.observe(lengths)
        if self.prefill_seconds is not None:
            observe("draft_prefill_seconds", [self.prefill_seconds()])


def _as_lists(columns: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in columns.items()}


def _record(
    columns: dict[str, list[Any]], request: int, place: int, kind: int, judged: bool
) -> tuple[Any, ...]:
    """One token of the trace; None where the round says nothing of it, or it was not ``judged``."""
    target = columns["target"][request][place]
    drafted = columns.get("drafted")
    if drafted is None or place >= len(drafted[request]):
        return kind, NOTHING_DRAFTED, target, None, None, None, None
    said = [None, None, None, None]
    if judged:
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
