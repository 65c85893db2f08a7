"""Random traffic: conversations with turns and forks, aborts among them, on a small KV pool."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lvspec_sglang.bench.conversations import chat
from lvspec_sglang.serving import LocalServer

WORDS = (
    "what where when who which colour shape motion left right before after slow fast why".split()
)
MAX_TURNS = 4
TIE = 1e-4  # in log probability


class Traffic:
    """Sends random requests, some at once, and compares every whole answer with the target's.

    Attributes:
        counts: requests by what they were (``new``, ``turn``, ``fork``) and what came of them:
            ``right``, ``aborted``, ``wrong``, or ``tied``: other than the target's from a token on
            that it was indifferent to.
        wrong: the wrong ones.
    """

    def __init__(
        self, server: LocalServer, alone: LocalServer, clips: Sequence[Path], seed: int
    ) -> None:
        """Load ``server``; ``alone`` serves the same target without speculation."""
        self.server, self.alone, self.clips = server, alone, clips
        self.random = random.Random(seed)
        self.conversations: list[tuple[Path, list[str]]] = []
        self.counts: Counter[str] = Counter()
        self.wrong: list[dict[str, Any]] = []

    def run(self, seconds: float, at_once: int = 6) -> None:
        """Send batches of ``at_once`` requests for ``seconds``."""
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(at_once) as pool:
            while time.monotonic() < end:
                batch = [self._next() for _ in range(at_once)]
                self.counts.update(pool.map(lambda asked: self._ask(*asked), batch))

    def _next(self) -> tuple[Path, list[str], int, float | None]:
        """A request's clip and turns, its length, and when to abort it."""
        question = " ".join(self.random.choices(WORDS, k=self.random.randint(2, 9)))
        kind = "new"
        clip = self.random.choice(self.clips)
        turns: list[str] = []
        if self.conversations and self.random.random() < 0.6:
            # Taken from the list it goes on; left in it, it forks.
            index = self.random.randrange(len(self.conversations))
            kind = self.random.choice(["turn", "fork"])
            taken = self.conversations.pop if kind == "turn" else self.conversations.__getitem__
            clip, turns = taken(index)
        abort = self.random.uniform(0.0, 0.5) if self.random.random() < 0.15 else None
        self.counts[kind] += 1
        return clip, [*turns, question], self.random.randint(4, 60), abort

    def _ask(self, clip: Path, turns: list[str], tokens: int, abort: float | None) -> str:
        payload: dict[str, Any] = {
            "text": chat(*turns), "video_data": [str(clip)],
            "sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True},
        }  # fmt: skip
        if abort is not None:
            self._abort(payload, abort)
            return "aborted"
        result = self.server.generate(**payload)
        want = self.alone.generate(**payload)
        if result["output_ids"] != want["output_ids"]:
            if self._tied(payload, result["output_ids"], want["output_ids"]):
                return "tied"
            self.wrong.append({"payload": payload, "got": result["output_ids"]})
            return "wrong"
        if len(turns) < 2 * MAX_TURNS:
            self.conversations.append((clip, [*turns, result["text"]]))
        return "right"

    def _tied(self, payload: dict[str, Any], got: list[int], want: list[int]) -> bool:
        """Whether the target itself hardly prefers its token where answers part.

        Random weights tie now and then; another batch then rounds the other way.
        """
        place = next(i for i, pair in enumerate(zip(got, want, strict=True)) if len({*pair}) > 1)
        sampling = payload["sampling_params"] | {"max_new_tokens": place + 1}
        asked = payload | {"sampling_params": sampling}
        meta = self.alone.generate(**asked, return_logprob=True, top_logprobs_num=2)["meta_info"]
        (best, _, _), (second, token, _) = meta["output_top_logprobs"][place]
        return token in (got[place], want[place]) and best - second < TIE

    def _abort(self, payload: dict[str, Any], after: float) -> None:
        rid = f"doomed-{id(payload)}-{time.monotonic_ns()}"
        events = self.server.stream(**payload, rid=rid)
        began = time.monotonic()
        for _ in events:
            if time.monotonic() - began > after:
                self.server.post("/abort_request", {"rid": rid})
                after = float("inf")

    def leaked(self, timeout_s: float = 60) -> int:
        """Tokens still in use after a flush, once the server is idle: 0 when the pool is whole."""
        end = time.monotonic() + timeout_s
        while not self.server.post("/flush_cache", {}).ok and time.monotonic() < end:
            time.sleep(0.5)
        loads = self.server.get("/v1/loads").json()["loads"]
        return sum(int(load["num_used_tokens"]) for load in loads)
