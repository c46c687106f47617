"""How many CPU threads a training uses on a machine that it does not have for itself.

OpenMP's threads wait for each other by spinning. Where another program holds one of the cores, the thread that shares
it is late at every barrier, and a step takes several times as long as on one thread less. No setting of the environment
helps without slowing a quiet machine down, so the count follows what the steps themselves say.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

import torch

WINDOW = 7
"""Steps whose median says what a step takes."""
TRIAL = 4
"""Steps on another count before it is judged; the first is left out, since the team of threads is made anew in it."""
SLOWER = 1.4
"""By how much a step has to exceed the best median so far of its count before fewer threads are tried."""
GAIN = 0.9
"""What a trial's median has to fall to, in terms of the median before it, for its count to stay."""
HOPELESS = 1.6
"""A step of a trial that takes so many times the median before it ends the trial."""
PATIENCE = 2.0, 60.0
"""Seconds until the next trial after one that was in vain: at first, and at most; they double each time."""


class AdaptiveThreads:
    """Follows the time of the steps with the number of threads: fewer where other programs take cores, all of them when
    they are free again.

    Trials cost a few steps: one at the start, since the machine may be busy already, then only where steps grow slow or
    while there are fewer threads than ``most``.

    Args:
        most: threads on a quiet machine, >= 1.
        use: sets the count; ``torch.set_num_threads`` by default.
        clock: seconds, which the time between trials is measured by.

    Example:
        >>> counts = []
        >>> threads = AdaptiveThreads(2, use=counts.append)
        >>> for _ in range(20):  # two threads that get in each other's way
        ...     threads.after_step(3.0 if threads.count == 2 else 1.0)
        >>> threads.count, counts
        (1, [1])
    """

    def __init__(
        self,
        most: int,
        *,
        use: Callable[[int], None] = torch.set_num_threads,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if most < 1:
            raise ValueError(f"most: expected a number of threads >= 1, got {most}")
        self.most = self.count = most
        self._use, self._clock = use, clock
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._best: dict[int, float] = {}
        self._start: tuple[int, float] | None = None  # the count that trials are held against, and its median
        self._candidates = _fewer(most)  # what is still to be tried
        self._tried: list[float] = []
        self._wait, self._since = PATIENCE[0], clock()

    def after_step(self, seconds: float) -> None:
        """Take note of a step's time, and choose the threads of the next one.

        Args:
            seconds: of the step, or of each of its items where steps have different numbers of them.
        """
        if self.most == 1:
            return
        if self._start is not None:
            self._judge(seconds, *self._start)
            return
        self._recent.append(seconds)
        if len(self._recent) < WINDOW:
            return
        median = statistics.median(self._recent)
        best = self._best[self.count] = min(median, self._best.get(self.count, median))
        if not self._candidates and self._clock() - self._since >= self._wait:
            slow = median > SLOWER * best
            self._candidates = (_fewer(self.count) if slow else []) or _more(self.count, self.most)
        if self._candidates:
            self._start = self.count, median
            self._set(self._candidates.pop(0))

    def restore(self) -> None:
        """Give the process back the number of threads that it had."""
        self._start, self._tried = None, []
        if self.count != self.most:
            self._set(self.most)

    def _judge(self, seconds: float, count: int, median: float) -> None:
        """Take note of a step on trial; at the trial's end keep its count, or go on to the next one."""
        self._tried.append(seconds)
        later = self._tried[1:]
        hopeless = bool(later) and later[-1] > HOPELESS * median
        if len(self._tried) < TRIAL and not hopeless:
            return
        self._tried = []
        found = statistics.median(later) if later else median
        if not hopeless and found < GAIN * median:
            self._best[self.count] = found  # what is known of it may be of a time when more was free
            self._candidates = _fewer(self.count) if self.count < count else []
            self._wait = PATIENCE[0]
        elif self._candidates:
            self._set(self._candidates.pop(0))
            return
        else:
            self._set(count)
            self._wait = min(2 * self._wait, PATIENCE[1])
        self._start, self._since = None, self._clock()

    def _set(self, count: int) -> None:
        self.count = count
        self._recent.clear()
        self._use(count)


def _fewer(count: int) -> list[int]:
    """Counts below ``count``, in the order in which they are tried."""
    return _distinct(count - max(1, count // 4), count // 2, count // 4, 1, outside=(0, count))


def _more(count: int, most: int) -> list[int]:
    """Counts above ``count``, in the order in which they are tried."""
    return _distinct(most, (count + most) // 2, count + 1, outside=(count,)) if count < most else []


def _distinct(*counts: int, outside: tuple[int, ...]) -> list[int]:
    return [each for each in dict.fromkeys(counts) if each not in outside]
