"""How many tokens to draft: as many as pay, by measured speed, down to none.

The rule, for each power of two of batch sizes by itself. The lengths are the server's number of
steps, its halves (10, 5, 2, 1) and 0, which is plain decoding. At first each is tried for ``trial``
rounds, the longest first. The fastest, in tokens a second, runs for ``run`` rounds; then its
neighbours are tried again. If one of them is faster by 5 % it takes over, else the next run is
twice as long, at most ``longest``. Above a batch of ``above`` requests nothing is drafted at all.
(Ours.)
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from statistics import median
from typing import Any

from lvspec_sglang.clock import Clock
from lvspec_sglang.config import DraftLengthConfig

MARGIN = 1.05
WINDOW = 16  # rounds of a length whose times are remembered
MEMORY = 1 - 1 / 64  # what is left a round later of what one said of acceptance


def lengths(steps: int) -> list[int]:
    """What is chosen from: ``steps``, its halves, 0."""
    return [steps >> halved for halved in range(steps.bit_length() + 1)]


class Acceptance:
    """How many of a chain's tokens are accepted, whatever length the rounds had that tell of it.

    A short chain hides what a longer one would have had accepted. So each place is counted by
    itself, where it was drafted: the share of chains that passed it among those that reached it.
    The product of the shares up to a place is how often that token is accepted (the estimator of
    Kaplan and Meier, 1958, for lifetimes cut short).
    """

    def __init__(self, steps: int) -> None:
        self._reached = [0.0] * steps
        self._passed = [0.0] * steps

    def learn(self, length: int, accepted: Sequence[int]) -> None:
        """Of chains of ``length`` tokens so many were accepted, one number a request."""
        at_least = [sum(count >= place for count in accepted) for place in range(length + 1)]
        for place in range(length):
            self._reached[place] = MEMORY * self._reached[place] + at_least[place]
            self._passed[place] = MEMORY * self._passed[place] + at_least[place + 1]

    def tokens(self, length: int) -> float:
        """What a round of ``length`` commits, the target's own token with the accepted ones."""
        share = total = 1.0
        for reached, passed in zip(self._reached[:length], self._passed[:length], strict=True):
            share *= passed / reached if reached else 0.0
            total += share
        return total


class Pace:
    """How fast rounds of one batch size went, by drafted length, and how long the next ones are."""

    def __init__(self, config: DraftLengthConfig, steps: int, agree: Callable[[int], int]) -> None:
        """Choose from ``lengths(steps)``; ``agree`` makes one rank's choice everybody's."""
        self.config = config
        self.lengths = lengths(steps)
        self.length = steps  # of the runs
        self.acceptance = Acceptance(steps)
        self._agree = agree
        self._seconds = {length: deque[float](maxlen=WINDOW) for length in self.lengths}
        self._plan = self._rounds()

    def next(self) -> int:
        """How many tokens the next round drafts."""
        return next(self._plan)

    def learn(self, length: int, seconds: float, accepted: Sequence[int]) -> None:
        """A round that drafted ``length`` took ``seconds``, and so many tokens were accepted."""
        self._seconds[length].append(seconds)
        self.acceptance.learn(length, accepted)

    def speed(self, length: int) -> float | None:
        """Tokens a second and request, by the median of seconds; None where none was timed."""
        seconds = self._seconds[length]
        return self.acceptance.tokens(length) / median(seconds) if seconds else None

    def _rounds(self) -> Iterator[int]:
        tried, run = self.lengths, 0
        while True:
            for length in tried:
                yield from repeat(length, self.config.trial)
            fastest = self._agree(self._fastest(tried))
            stays = run > 0 and fastest == self.length
            run = min(2 * run, self.config.longest) if stays else self.config.run
            self.length = fastest
            yield from repeat(fastest, run)
            place = self.lengths.index(fastest)
            tried = [*self.lengths[:place][-1:], *self.lengths[place + 1 :][:1]]

    def _fastest(self, tried: Sequence[int]) -> int:
        speeds = {length: self.speed(length) or 0.0 for length in (self.length, *tried)}
        best = max(speeds, key=speeds.__getitem__)
        return best if speeds[best] > MARGIN * speeds[self.length] else self.length


class DraftLength:
    """Decides before each round how much to draft, from results that have reached the host.

    Every rank of a tensor-parallel group runs the same rounds and so asks at the same moments; only
    where trials end do their clocks matter, and there ``agree`` is called.
    """

    def __init__(
        self,
        config: DraftLengthConfig,
        steps: int,
        measure: bool,
        clock: Clock,
        agree: Callable[[int], int],
    ) -> None:
        """Draft at most ``steps`` tokens a round; ``measure`` where ``config`` leaves it open."""
        self.config = config
        self.steps = steps
        self.measure = measure if config.measure is None else config.measure
        self.clock = clock
        self.agree = agree
        self._paces: dict[int, Pace] = {}
        self._running: deque[tuple[Pace, int, Any, Any]] = deque()

    def next(self, batch: int) -> int:
        """How many tokens the next round, of ``batch`` requests, drafts; 0 for a plain one."""
        if self.config.above is not None and batch > self.config.above:
            return 0
        return self._pace(batch).next() if self.measure else self.steps

    def ran(self, batch: int, length: int, began: Any) -> None:
        """A round was started at the stamp ``began``, and has been handed to the device."""
        self._running.append((self._pace(batch), length, began, self.clock.now()))

    def finished(self, accepted: Sequence[int]) -> None:
        """The oldest running round's result is on the host.

        Args:
            accepted: drafted tokens accepted of each request.
        """
        pace, length, began, ended = self._running.popleft()
        pace.learn(length, self.clock.seconds(began, ended), accepted)

    def report(self) -> dict[str, Any]:
        """What is known of each batch size, named by the largest it stands for."""
        return {
            str(1 << size): {
                "length": pace.length,
                "tokens_per_second": {str(length): pace.speed(length) for length in pace.lengths},
            }
            for size, pace in sorted(self._paces.items())
        }

    def _pace(self, batch: int) -> Pace:
        size = (batch - 1).bit_length()
        if size not in self._paces:
            self._paces[size] = Pace(self.config, self.steps, self.agree)
        return self._paces[size]
