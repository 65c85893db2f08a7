"""``sglang.launch_server`` with a clock on the phases of LVSPEC's rounds.

SGLang starts its processes by importing this module again, so that what it replaces is replaced in
the scheduler. On a GPU the clock is the device's: events that are read once they have passed.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lvspec_sglang import algorithm
from lvspec_sglang.clock import Clock
from lvspec_sglang.verify import accept_on
from lvspec_sglang.verify.rule import Kind, Verdict

TIMES_ENV = "LVSPEC_BENCH_TIMES"
TRACE_ENV = "LVSPEC_BENCH_TRACE"
PHASES = ("draft", "plan", "verify", "relevance", "accept", "round", "between")
KEPT = 4  # rounds whose marks are held before they are read


class RoundClock:
    """Times of rounds and their phases, appended to a file once the device has passed them.

    A round is a JSON line: its ``batch``, requests of it, and the milliseconds of each phase.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        self.clock = Clock(device)
        self._rounds: list[tuple[int, list[tuple[str, Any, Any]]]] = []
        self._phases: list[tuple[str, Any, Any]] = []
        self._last_end: Any = None

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = self.clock.now()
            result = function(*args, **kwargs)
            self._phases.append((name, start, self.clock.now()))
            return result

        return run

    def begin(self) -> Any:
        """Begin a round; what passed since the last one's end is the host's."""
        start = self.clock.now()
        self._phases = []
        if self._last_end is not None:
            self._phases.append(("between", self._last_end, start))
        return start

    def end(self, start: Any, batch: int) -> None:
        """End the round of ``batch`` requests that began at ``start``."""
        self._last_end = self.clock.now()
        self._rounds.append((batch, [*self._phases, ("round", start, self._last_end)]))
        if len(self._rounds) == 2 * KEPT:
            self._write(self._rounds[:KEPT])
            del self._rounds[:KEPT]

    def pause(self) -> None:
        """A prefill comes between two rounds."""
        self._last_end = None

    def _write(self, rounds: list[tuple[int, list[tuple[str, Any, Any]]]]) -> None:
        with self.path.open("a") as file:
            for batch, phases in rounds:
                line: dict[str, float] = {"batch": batch}
                for name, start, end in phases:
                    passed = self.clock.seconds(start, end) * 1e3
                    line[name] = line.get(name, 0.0) + passed
                file.write(json.dumps(line) + "\n")


def lines_of(times: Path) -> int:
    """How many rounds a server has written to ``times``."""
    return len(times.read_text().splitlines()) if times.exists() else 0


def phases_since(times: Path, before: int, batch: int) -> dict[str, float]:
    """Median milliseconds of each phase of the whole ``batch``'s rounds since line ``before``.

    The first of them were still held when the run before ended, and are its.
    """
    lines = times.read_text().splitlines()[before + 2 * KEPT :] if times.exists() else []
    return medians([found for line in lines if (found := json.loads(line))["batch"] == batch])


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each phase over ``rounds``, of those that have it."""
    held = {name: [r[name] for r in rounds if name in r] for name in PHASES}
    return {name: median(values) for name, values in held.items() if values}


def judging_share(strict: dict[str, float], relaxed: dict[str, float]) -> float | None:
    """The share of a ``relaxed`` round that relevance and the accept rule take.

    Relevance is mostly computed in the verify forward, where a strict round computes none: what it
    costs there is by how much that forward is longer. Both rounds are given by the milliseconds of
    their phases; None where one lacks a phase.
    """
    if "verify" not in strict or not {"verify", "relevance", "accept", "round"} <= relaxed.keys():
        return None
    inside = relaxed["verify"] - strict["verify"]
    return (inside + relaxed["relevance"] + relaxed["accept"]) / relaxed["round"]


class Simulated:
    """The accept rule with a trace in place of its verdict; the rule still runs, for its cost."""

    def __init__(self, accept: Callable[..., Verdict], trace: list[int], device: Any) -> None:
        self.accept = accept
        self.trace = torch.tensor(trace, device=device)
        self.round = 0

    def __call__(self, drafted: Any, target: Any, policy: Any, *rest: Any) -> Verdict:
        verdict = self.accept(drafted, target, policy, *rest)
        batch, steps = drafted.shape
        places = torch.arange(batch, device=drafted.device) + self.round
        self.round += batch
        accepted = self.trace[places % len(self.trace)].minimum(policy.limit.long())[:, None]
        offsets = torch.arange(steps + 1, device=drafted.device)
        is_draft = offsets < accepted
        tokens = torch.where(is_draft, torch.cat([drafted, target[:, -1:]], dim=1), target)
        kinds = torch.full_like(verdict.kinds, Kind.TARGET)
        kinds[:, -1] = Kind.BONUS
        kinds = kinds.masked_fill(is_draft, Kind.MATCH)
        return verdict._replace(accept_lens=(accepted[:, 0] + 1).int(), tokens=tokens, kinds=kinds)


def timed_worker(worker: Any, clock: RoundClock) -> type:
    """A subclass of LVSPEC's worker whose phases are timed."""
    from lvspec_sglang import worker as module

    module.prepare_verify = clock.timed("plan", module.prepare_verify)

    class TimedWorker(worker):
        report: Callable[[int], None]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.accept = clock.timed("accept", accept_on(torch.device(self.device).type))
            if os.environ.get(TRACE_ENV):
                trace = json.loads(Path(os.environ[TRACE_ENV]).read_text())
                self.accept = Simulated(self.accept, trace, self.device)
            forward = self.target_worker.forward_batch_generation
            verify = clock.timed("verify", forward)
            self.target_worker.forward_batch_generation = lambda *a, **k: (
                verify if k.get("is_verify") else forward
            )(*a, **k)

        def init_attention_backends(self) -> None:
            super().init_attention_backends()
            self.report = clock.timed("relevance", self.report)
            self.relaxation.evidence = clock.timed("relevance", self.relaxation.evidence)
            self.drafting.draft = clock.timed("draft", self.drafting.draft)

        def forward_batch_generation(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
            if batch.forward_mode.is_extend():
                clock.pause()
                return super().forward_batch_generation(batch, *args, **kwargs)
            start = clock.begin()
            result = super().forward_batch_generation(batch, *args, **kwargs)
            clock.end(start, len(batch.reqs))
            return result

    return TimedWorker


def _with_clock(create: Callable[[Any], type]) -> Callable[[Any], type]:
    def create_timed(server_args: Any) -> type:
        clock = RoundClock(
            Path(os.environ[TIMES_ENV]), torch.device(algorithm.resolved_device(server_args))
        )
        return timed_worker(create(server_args), clock)

    return create_timed


if os.environ.get(TIMES_ENV):
    setattr(algorithm, "create_worker", _with_clock(algorithm.create_worker))  # noqa: B010

if __name__ == "__main__":
    import runpy

    runpy.run_module("sglang.launch_server", run_name="__main__")
