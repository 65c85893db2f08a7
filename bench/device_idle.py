"""How long the device idles in a round, from the kernels that the host's own profiler records.

A round is the time between the ends of two accept kernels: its draft, its verify forward, and what
the host does before and between them. The profiler slows the host down, so a share is an upper
bound. Between two kernels of a captured graph lie a microsecond or two, which are the graph's: the
share of the longer gaps is that of a device that waits for the host.
"""

import gzip
import json
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from lvspec_sglang.bench.decoding import Unmeasured
from lvspec_sglang.client import Client, Refused
from lvspec_sglang.verify.kernel import accept_kernel

BUSY = ("kernel", "gpu_memcpy", "gpu_memset")
END = str(accept_kernel.fn.__name__)
LONG_US = 5.0
TOKENS = 200  # of the answer that is profiled


def measured_idle(server: Client, payload: dict[str, Any], folder: Path) -> dict[str, float | str]:
    """``device_idle`` of ``server``'s rounds while it answers ``payload``, or why there is none.

    The answer is cut to ``TOKENS``. With it comes the share of the gaps longer than ``LONG_US``.
    """
    sampling = payload["sampling_params"]
    sampling = sampling | {"max_new_tokens": min(TOKENS, sampling["max_new_tokens"])}
    try:
        events = profile(server, payload | {"sampling_params": sampling}, folder)
        return {
            "device_idle": device_idle(events),
            f"device_idle_over_{LONG_US:.0f}_us": device_idle(events, LONG_US),
        }
    except (Refused, ValueError, EOFError, OSError) as error:  # Unmeasured, HTTP, broken traces
        return {"device_idle": f"not measured: {error}"}


def profile(
    server: Client, payload: dict[str, Any], folder: Path, activity: str = "GPU"
) -> list[dict[str, Any]]:
    """The events of ``activity`` while ``server``, on this machine, answers ``payload``.

    ``folder`` is where its scheduler leaves the trace; of several ranks the first one's is read.

    Raises:
        Unmeasured: it left none.
    """
    given = {"output_dir": str(folder), "activities": [activity], "with_stack": False}
    before = set(folder.glob("*"))
    server.post("/start_profile", given | {"record_shapes": False}).raise_for_status()
    server.generate(**payload)
    server.post("/stop_profile", {}).raise_for_status()
    written = set(folder.glob("*TP-0*.trace.json.gz")) - before
    if not written:
        raise Unmeasured(f"the server left no trace in {folder}")
    with gzip.open(written.pop(), "rt") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


def device_idle(events: Sequence[dict[str, Any]], longer_us: float = 0.0) -> float:
    """The share of a round, median of all, in which the device runs and copies nothing.

    Args:
        events: of a Chrome trace, all of one device.
        longer_us: microseconds; shorter gaps count as run.

    Raises:
        Unmeasured: they hold no round.
    """
    ran = sorted(
        (event["ts"], event["ts"] + event["dur"], event["name"])
        for event in events
        if event.get("ph") == "X" and event.get("cat") in BUSY
    )
    ends = [end for _, end, name in ran if name == END]
    if len(ends) < 2:
        raise Unmeasured(f"the profile holds {len(ends)} launches of {END}: no round")
    gaps, reached = [], ran[0][0]
    for start, end, _ in ran:
        if start - reached > longer_us:
            gaps.append((reached, start))
        reached = max(reached, end)
    idle = Idle(gaps)
    return median((idle.until(stop) - idle.until(begin)) / (stop - begin)
                  for begin, stop in pairwise(ends))  # fmt: skip


class Idle:
    """How long a device had idled by any moment."""

    def __init__(self, gaps: Sequence[tuple[float, float]]) -> None:
        """``gaps`` are ascending and apart."""
        self.stops = [stop for _, stop in gaps]
        self.starts = [start for start, _ in gaps]
        self.sums = [0.0, *accumulate(stop - start for start, stop in gaps)]

    def until(self, moment: float) -> float:
        """The length of all gaps before ``moment``."""
        over = bisect_left(self.stops, moment)
        within = max(0.0, moment - self.starts[over]) if over < len(self.starts) else 0.0
        return self.sums[over] + within
