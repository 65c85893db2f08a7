"""The runs of a speed bench: servers started in turn or together, sides decoding in turn."""

from collections import defaultdict
from collections.abc import Generator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import requests
import torch

from lvspec_sglang.bench.decoding import Unmeasured, decode, kv_tokens, warm_up, with_preset
from lvspec_sglang.bench.device_idle import measured_idle
from lvspec_sglang.bench.speed_table import STRICT, Side, rows_of
from lvspec_sglang.bench.timed_server import lines_of, phases_since
from lvspec_sglang.client import Refused
from lvspec_sglang.serving import LocalServer, ServerFailed, together

TIMES = "times"


class SpeedRuns:
    """What is measured, and what was.

    Attributes:
        pools: tokens of each server's KV pool.
        runs: the figures of each run of a side at a batch size.
        left_out: why a side was not measured at a batch size.
        failed: servers that ended, and what they said.
    """

    def __init__(
        self,
        servers: dict[str, LocalServer],
        compared: list[Side],
        prompts: list[dict[str, Any]],
        batches: list[int],
        folder: Path,
        baseline: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Compare sides on ``prompts``; the timed server writes to ``folder / TIMES``.

        ``baseline`` has rows of the target alone, where it is not one of the sides.
        """
        self.servers = servers
        self.compared = compared
        self.prompts = prompts
        self.batches = batches
        self.folder = folder
        self.baseline = baseline
        self.pools: dict[str, int] = {}
        self.runs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        self.left_out: dict[tuple[str, int], str] = {}
        self.failed: list[str] = []

    def measure(
        self, in_turn: bool, repeats: int, own: int
    ) -> Generator[dict[str, Any], None, None]:
        """Yield the pools and the rows so far, after each run of a side, then after the profile.

        Args:
            in_turn: one server at a time, not all side by side.
            own: tokens of KV that a request needs beyond its prompt.
        """
        for group in [[name] for name in self.servers] if in_turn else [list(self.servers)]:
            present = [side for side in self.compared if side.server in group]
            try:
                with together(*(self.servers[name] for name in group)):
                    self._warm_up(present, own)
                    for _, batch, side in product(range(repeats), self.batches, present):
                        self._decode(side, batch)
                        yield self._so_far()
                    self._profile(present)
            except (ServerFailed, Refused, requests.RequestException) as error:
                self.failed.append(f"{', '.join(group)}: {error}")
                for side, batch in product(present, self.batches):
                    if not self.runs[side.name, batch]:
                        self.left_out.setdefault((side.name, batch), "the server failed")
            yield self._so_far()

    def _so_far(self) -> dict[str, Any]:
        rows = rows_of(self.compared, self.batches, self.runs, self.left_out, self.baseline)
        return {"max_total_num_tokens": self.pools, "rows": rows}

    def _warm_up(self, present: list[Side], own: int) -> None:
        """Decode each side's largest batch once; leave out those that the KV pool cannot hold."""
        for side in present:
            server = self.servers[side.server]
            pool = self.pools[side.server] = server.info()["max_total_num_tokens"]
            prompt = warm_up(server, self.prompts[:1], side.preset)
            fitting = [1]
            for batch in self.batches:
                need = kv_tokens(self.prompts[:batch], prompt, own)
                if need <= pool:
                    fitting.append(batch)
                else:
                    said = f"needs {need} tokens of KV, the pool has {pool}"
                    self.left_out[side.name, batch] = said
            warm_up(server, self.prompts[: max(fitting)], side.preset)

    def _decode(self, side: Side, batch: int) -> None:
        if (side.name, batch) in self.left_out:
            return
        times = self.folder / TIMES
        before = lines_of(times)
        try:
            figures = decode(self.servers[side.server], self.prompts[:batch], side.preset)
        except Unmeasured as error:
            self.left_out[side.name, batch] = str(error)
            return
        figures["phases"] = phases_since(times, before, batch)
        self.runs[side.name, batch].append(figures)

    def _profile(self, present: list[Side]) -> None:
        """How long the device idles in rounds of the first relaxed side, a request at a time."""
        drafting = [side for side in present if side.server == "LVSPEC" and self.runs[side.name, 1]]
        drafting.sort(key=lambda side: side.name == STRICT)
        if torch.cuda.is_available() and drafting:
            side = drafting[0]
            asked = with_preset(self.prompts[0], side.preset)
            idle = measured_idle(self.servers[side.server], asked, self.folder)
            self.runs[side.name, 1][-1].update(idle)
