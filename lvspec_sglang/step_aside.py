"""When drafting does not pay: plain decoding for a while, then another try.

The rule, for each power of two of batch sizes by itself: both ways of decoding are tried for
``trial`` rounds, drafting first; the faster one, in tokens a second, runs for ``run`` rounds; then
the other is tried again. If that was faster by 5 % they change places, else the next run is twice
as long, at most ``longest``. Above a batch of ``above`` requests nothing is drafted at all. (Ours.)
"""

from collections import deque
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

from lvspec_sglang.clock import Clock
from lvspec_sglang.config import StepAsideConfig

MARGIN = 1.05
WINDOW = 16


class Pace:
    """How fast rounds of one batch size went, drafted and plain, and which way the next ones go."""

    def __init__(self, config: StepAsideConfig) -> None:
        self.config = config
        self.drafts = True  # whether drafting is the faster way
        self.trying = False
        self.length = 0  # of the run after the last trial; 0 before the first
        self.left = config.trial
        self._seconds = {way: deque[float](maxlen=WINDOW) for way in (True, False)}
        self._tokens = {way: deque[float](maxlen=WINDOW) for way in (True, False)}

    def next(self, agree: Callable[[bool], bool]) -> bool:
        """Whether the next round drafts; ``agree`` makes one rank's change of mind everybody's."""
        if self.left == 0:
            if not self.trying:
                self.left = self.config.trial
            elif agree(self._other_is_faster()):
                self.drafts = not self.drafts
                self.length = self.left = self.config.run
            else:
                self.left = min(2 * self.length, self.config.longest) or self.config.run
                self.length = self.left
            self.trying = not self.trying
        self.left -= 1
        return self.drafts != self.trying

    def learn(self, drafted: bool, seconds: float, tokens: float) -> None:
        """A round took ``seconds`` and committed ``tokens`` a request."""
        self._seconds[drafted].append(seconds)
        self._tokens[drafted].append(tokens)

    def _other_is_faster(self) -> bool:
        mine, other = self.speed(self.drafts), self.speed(not self.drafts)
        return mine is not None and other is not None and other > MARGIN * mine

    def speed(self, drafted: bool) -> float | None:
        """Tokens a second and request, of drafted or of plain rounds, by the median of seconds."""
        if not self._seconds[drafted]:
            return None
        return fmean(self._tokens[drafted]) / median(self._seconds[drafted])


class StepAside:
    """Decides before each round whether to draft, from results that have reached the host.

    Every rank of a tensor-parallel group runs the same rounds and so asks at the same moments; only
    where a trial ends do their clocks matter, and there ``agree`` is called.
    """

    def __init__(
        self,
        config: StepAsideConfig,
        measure: bool,
        clock: Clock,
        agree: Callable[[bool], bool],
    ) -> None:
        self.config = config
        self.measure = measure if config.measure is None else config.measure
        self.clock = clock
        self.agree = agree
        self._paces: dict[int, Pace] = {}
        self._running: deque[tuple[Pace, bool, Any, Any]] = deque()

    def drafts(self, batch: int) -> bool:
        """Whether the next round, of ``batch`` requests, drafts."""
        if self.config.above is not None and batch > self.config.above:
            return False
        return self._pace(batch).next(self.agree) if self.measure else True

    def ran(self, batch: int, drafted: bool, began: Any) -> None:
        """A round was started at the stamp ``began``, and has been handed to the device."""
        self._running.append((self._pace(batch), drafted, began, self.clock.now()))

    def finished(self, accepted: Sequence[int]) -> None:
        """The oldest running round's result is on the host.

        Args:
            accepted: drafted tokens accepted of each request.
        """
        pace, drafted, began, ended = self._running.popleft()
        pace.learn(drafted, self.clock.seconds(began, ended), 1 + fmean(accepted))

    def report(self) -> dict[str, Any]:
        """What is known of each batch size, named by the largest it stands for."""
        return {
            str(1 << size): {
                "drafts": pace.drafts,
                "tokens_per_second": {
                    "drafted": pace.speed(True), "plain": pace.speed(False),
                },
            }
            for size, pace in sorted(self._paces.items())
        }  # fmt: skip

    def _pace(self, batch: int) -> Pace:
        size = (batch - 1).bit_length()
        if size not in self._paces:
            self._paces[size] = Pace(self.config)
        return self._paces[size]
