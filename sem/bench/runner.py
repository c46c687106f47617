"""Runs a benchmark: correctness first, then the timings of what was correct."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sem.bench.registry import Benchmark, Check, Comparison, Contender
from sem.bench.timing import Spread, interleave, paired_ratio


@dataclass(frozen=True)
class Line:
    """A measured comparison. ``ratio`` and the times (seconds) are None where a result was wrong."""

    benchmark: str
    comparison: Comparison
    subject_checks: Sequence[Check]
    peer_checks: Sequence[Check]
    ratio: Spread | None = None
    subject_time: Spread | None = None
    peer_time: Spread | None = None

    @property
    def correct(self) -> bool:
        """Whether every output of both contenders is within its limit."""
        return all(check.passed for check in (*self.subject_checks, *self.peer_checks))

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar, or where there is no ratio to judge."""
        return None if self.ratio is None else self.comparison.meets_bar(self.ratio.median)


def run(benchmark: Benchmark, repeats: int, clock: Callable[[], float] = time.perf_counter) -> list[Line]:
    """Build and measure one benchmark, and say so on standard error."""
    print(f"{benchmark.name} ...", file=sys.stderr, flush=True)
    return measure(benchmark.name, benchmark.build(), repeats, clock=clock)


def measure(
    benchmark: str,
    comparisons: Sequence[Comparison],
    repeats: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Line]:
    """Check every contender against its truth, time the correct ones in turn, pair them up."""
    contenders = _unique([c for line in comparisons for c in (line.subject, line.peer)])
    checks = {id(contender): contender.checks() for contender in contenders}
    correct = [c for c in contenders if all(check.passed for check in checks[id(c)])]
    timed = interleave([c.run for c in correct], repeats, warmup, clock)
    seconds = {id(c): [once / c.share for once in times] for c, times in zip(correct, timed, strict=True)}
    lines = []
    for comparison in comparisons:
        subject, peer = id(comparison.subject), id(comparison.peer)
        checked = Line(benchmark, comparison, checks[subject], checks[peer])
        if checked.correct:
            over, under = (peer, subject) if comparison.kind == "speed-up" else (subject, peer)
            ratio = paired_ratio(seconds[over], seconds[under])
            times = Spread.of(seconds[subject]), Spread.of(seconds[peer])
            checked = Line(benchmark, comparison, checks[subject], checks[peer], ratio, *times)
        lines.append(checked)
    return lines


def _unique(contenders: Sequence[Contender]) -> list[Contender]:
    return list({id(contender): contender for contender in contenders}.values())
