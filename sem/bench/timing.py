"""Times calls in turn, so that whatever slows the machine down for a while slows all of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median of several measurements, with the least and the largest."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of ``values``, of which there is at least one."""
        return cls(statistics.median(values), min(values), max(values))


def interleave(
    calls: Sequence[Callable[[], object]],
    repeats: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Call A, B, ..., A, B, ... and return the seconds of every call, ``[len(calls)][repeats]``.

    The first ``warmup`` rounds are not counted. Garbage collection waits until the end.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(warmup + repeats):
            for call, times in zip(calls, seconds, strict=True):
                start = clock()
                call()
                elapsed = clock() - start
                if turn >= warmup:
                    times.append(elapsed)
    finally:
        if collecting:
            gc.enable()
    return seconds


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Spread of the ratios of measurements made in the same round."""
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=True)])
