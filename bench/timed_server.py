"""``sglang.launch_server`` with a clock on the phases of LVSPEC's rounds.

SGLang starts its processes by importing this module again, so that what it replaces is replaced in
the scheduler. On a GPU the clock is the device's: events that are read once they have passed.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lvspec_sglang import algorithm
from lvspec_sglang.verify import accept_on
from lvspec_sglang.verify.rule import Kind, Verdict

TIMES_ENV = "LVSPEC_BENCH_TIMES"
TRACE_ENV = "LVSPEC_BENCH_TRACE"
KEPT = 4  # rounds whose marks are held before they are read


class Clock:
    """Marks on the device's time line, read later and appended to a file, a line a phase."""

    def __init__(self, path: Path, on_gpu: bool) -> None:
        self.path = path
        self.on_gpu = on_gpu
        self._rounds: list[list[tuple[str, Any, Any]]] = [[]]
        self._last_end: Any = None

    def mark(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = self.mark()
            result = function(*args, **kwargs)
            self._rounds[-1].append((name, start, self.mark()))
            return result

        return run

    def begin(self) -> Any:
        """Begin a round; what passed since the last one's end is the host's."""
        start = self.mark()
        if self._last_end is not None:
            self._rounds[-1].append(("between", self._last_end, start))
        return start

    def end(self, start: Any) -> None:
        self._last_end = self.mark()
        self._rounds[-1].append(("round", start, self._last_end))
        self._rounds.append([])
        if len(self._rounds) > 2 * KEPT:
            self._write(self._rounds[:KEPT])
            del self._rounds[:KEPT]

    def pause(self) -> None:
        """A prefill comes between two rounds."""
        self._last_end = None

    def _write(self, rounds: list[list[tuple[str, Any, Any]]]) -> None:
        with self.path.open("a") as file:
            for marks in rounds:
                line: dict[str, float] = {}
                for name, start, end in marks:
                    passed = start.elapsed_time(end) if self.on_gpu else (end - start) * 1e3
                    line[name] = line.get(name, 0.0) + passed
                file.write(json.dumps(line) + "\n")


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
        accepted = self.trace[places % len(self.trace)].minimum(policy.limit)[:, None]
        offsets = torch.arange(steps + 1, device=drafted.device)
        is_draft = offsets < accepted
        tokens = torch.where(is_draft, torch.cat([drafted, target[:, -1:]], dim=1), target)
        kinds = torch.full_like(verdict.kinds, Kind.TARGET)
        kinds[:, -1] = Kind.BONUS
        kinds = kinds.masked_fill(is_draft, Kind.MATCH)
        return verdict._replace(accept_lens=(accepted[:, 0] + 1).int(), tokens=tokens, kinds=kinds)


def timed_worker(worker: Any, clock: Clock) -> type:
    """A subclass of LVSPEC's worker whose phases are timed."""
    from lvspec_sglang import worker as module

    module.prepare_verify = clock.timed("plan", module.prepare_verify)

    class TimedWorker(worker):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            accept: Callable[..., Verdict] = accept_on(torch.device(self.device).type, self.steps)
            if os.environ.get(TRACE_ENV):
                trace = json.loads(Path(os.environ[TRACE_ENV]).read_text())
                accept = Simulated(accept, trace, self.device)
            self.accept = clock.timed("accept", accept)
            forward = self.target_worker.forward_batch_generation
            verify = clock.timed("verify", forward)
            self.target_worker.forward_batch_generation = lambda *a, **k: (
                verify if k.get("is_verify") else forward
            )(*a, **k)

        def init_attention_backends(self) -> None:
            super().init_attention_backends()
            self.relaxation.evidence = clock.timed("relevance", self.relaxation.evidence)
            self.drafting.draft = clock.timed("draft", self.drafting.draft)

        def forward_batch_generation(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
            if batch.forward_mode.is_extend():
                clock.pause()
                return super().forward_batch_generation(batch, *args, **kwargs)
            start = clock.begin()
            result = super().forward_batch_generation(batch, *args, **kwargs)
            clock.end(start)
            return result

    return TimedWorker


def _with_clock(create: Callable[[Any], type]) -> Callable[[Any], type]:
    def create_timed(server_args: Any) -> type:
        clock = Clock(Path(os.environ[TIMES_ENV]), server_args.device == "cuda")
        return timed_worker(create(server_args), clock)

    return create_timed


if os.environ.get(TIMES_ENV):
    setattr(algorithm, "create_worker", _with_clock(algorithm.create_worker))  # noqa: B010

if __name__ == "__main__":
    import runpy

    runpy.run_module("sglang.launch_server", run_name="__main__")
