"""What a sweep may conclude, by rule.

    "A is better than B"       the worst seed of A beats the best seed of B
    "A prevents collapse"      none of A's n runs has collapsed, and of B's at least two
    "same run"                 the loss curves of A and B with one seed agree in every digit
    "not decided by n seeds"   everything else

Nothing is decided by fewer than three seeds, by seeds of which one has failed, or between arms that are the same run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from sem.sweeps.experiment import Better, Figure
from sem.sweeps.results import RunResult

FEWEST_SEEDS = 3
_FEWEST_COLLAPSES = 2
_FEWEST_POINTS = 2


@dataclass(frozen=True)
class Verdict:
    """The answer to one question about two arms.

    Attributes:
        kind: what was found.
        question: label of the figure, or ``"collapse"``.
        arms: both; where the first one won, it is the first.
        text: the verdict as a sentence.
    """

    kind: Literal["better", "prevents", "same", "undecided"]
    question: str
    arms: tuple[str, str]
    text: str


def beats(a: Sequence[float], b: Sequence[float], better: Better) -> bool:
    """Whether the worst value of ``a`` is better than the best one of ``b``; NaN is worse than any number.

    Example:
        >>> beats([1.0, 1.2], [1.3, 1.9], "lower"), beats([1.0, 1.4], [1.3, 1.9], "lower")
        (True, False)
    """
    sign = 1.0 if better == "lower" else -1.0
    costs_a, costs_b = ([math.inf if math.isnan(v) else sign * v for v in values] for values in (a, b))
    return bool(costs_a) and bool(costs_b) and max(costs_a) < min(costs_b)


def prevents_collapse(a: Sequence[bool], b: Sequence[bool]) -> bool:
    """Whether none of ``a`` has collapsed and at least two of ``b``, with three of each or more.

    Example:
        >>> prevents_collapse([False] * 3, [True, True, False]), prevents_collapse([False] * 2, [True, True])
        (True, False)
    """
    return min(len(a), len(b)) >= FEWEST_SEEDS and not any(a) and sum(b) >= _FEWEST_COLLAPSES


def same_curve(a: RunResult, b: RunResult) -> bool:
    """Whether training and validation losses agree in every digit, at two points or more that are finite."""
    curves = [(*run.loss, *run.validation) for run in (a, b)]
    finite = sum(math.isfinite(value) for _, value in curves[0])
    return finite >= _FEWEST_POINTS and repr((a.loss, a.validation)) == repr((b.loss, b.validation))


@dataclass(frozen=True)
class SameRuns:
    """Runs that should differ and do not.

    Attributes:
        arms: pairs of arms, with the seeds at which they are the same run.
        seeds: arms of which several seeds are the same run, with those seeds.
    """

    arms: Mapping[tuple[str, str], tuple[int, ...]]
    seeds: Mapping[str, tuple[int, ...]]

    @property
    def sentences(self) -> list[str]:
        """One sentence for each entry of ``arms`` and of ``seeds``."""
        told = [
            f"same run: {a} and {b} agree in every digit of their loss curves ({_seeds(seeds)}); what sets them apart "
            "did not arrive, and neither is ranked against the other"
            for (a, b), seeds in self.arms.items()
        ]
        return told + [
            f"same run: {_seeds(seeds)} of {arm} agree in every digit of their loss curves; the seed did not arrive, "
            "and nothing is decided about this arm"
            for arm, seeds in self.seeds.items()
        ]


def same_runs(results: Sequence[RunResult]) -> SameRuns:
    """Which of the finished runs are the same: of two arms with one seed, or of one arm with two seeds."""
    groups: dict[str, list[RunResult]] = defaultdict(list)
    for result in results:
        if result.state == "finished":
            groups[repr((result.loss, result.validation))].append(result)
    arms: dict[tuple[str, str], list[int]] = defaultdict(list)
    seeds: dict[str, list[int]] = defaultdict(list)
    for group in groups.values():
        for a, b in combinations(group, 2):
            if not same_curve(a, b):
                continue
            if a.arm == b.arm:
                seeds[a.arm] = sorted({*seeds[a.arm], a.seed, b.seed})
            elif a.seed == b.seed:
                arms[(a.arm, b.arm)].append(a.seed)
    of_arms = {pair: tuple(sorted(found)) for pair, found in arms.items()}
    return SameRuns(of_arms, {arm: tuple(found) for arm, found in seeds.items()})


def judge(a: Sequence[RunResult], b: Sequence[RunResult], figure: Figure | None, same: SameRuns) -> Verdict:
    """The verdict about two arms, from the seeds that both have finished.

    Args:
        a: the runs of one arm.
        b: the runs of another one.
        figure: which of the two is better in it; None: which prevents collapse.
        same: runs that are the same.

    Example:
        >>> one = [RunResult("one", seed, "finished", {"error": 0.1 + seed / 100}) for seed in range(3)]
        >>> two = [RunResult("two", seed, "finished", {"error": 0.2 + seed / 100}) for seed in range(3)]
        >>> judge(two, one, Figure("error", "test error"), SameRuns({}, {})).text
        'one is better than two in test error: the worst of 3 seeds, 0.12, beats the best, 0.2'
    """
    names = a[0].arm, b[0].arm
    question = "collapse" if figure is None else figure.label
    if why := _undecidable(a, b, same):
        kind: Literal["same", "undecided"] = "same" if why == "same run" else "undecided"
        return Verdict(kind, question, names, f"{names[0]} and {names[1]}, {question}: {why}")
    done = [{run.seed: run for run in runs if run.state == "finished"} for runs in (a, b)]
    seeds = sorted(done[0].keys() & done[1].keys())
    for first, second in (done, done[::-1]):
        text = _claim([first[seed] for seed in seeds], [second[seed] for seed in seeds], figure)
        if text:
            ordered = first[seeds[0]].arm, second[seeds[0]].arm
            return Verdict("prevents" if figure is None else "better", question, ordered, text)
    text = f"{names[0]} and {names[1]}, {question}: not decided by {len(seeds)} seeds"
    return Verdict("undecided", question, names, text)


def _claim(a: Sequence[RunResult], b: Sequence[RunResult], figure: Figure | None) -> str:
    """What ``a`` is said to be better in than ``b``, as a sentence; empty if it is not."""
    winner, loser, count = a[0].arm, b[0].arm, len(a)
    if figure is None:
        collapsed_a, collapsed_b = ([bool(run.collapsed) for run in runs] for runs in (a, b))
        if not prevents_collapse(collapsed_a, collapsed_b):
            return ""
        counts = f"0/{count} against {sum(collapsed_b)}/{count} collapsed"
        return f"{winner} prevents collapse, {loser} does not: {counts}"
    values_a, values_b = ([run.figures[figure.name] for run in runs] for runs in (a, b))
    if not beats(values_a, values_b, figure.better):
        return ""
    worst, best = _worst(values_a, figure.better), _best(values_b, figure.better)
    claim = f"{winner} is better than {loser} in {figure.label}"
    return f"{claim}: the worst of {count} seeds, {worst:.5g}, beats the best, {best:.5g}"


def _undecidable(a: Sequence[RunResult], b: Sequence[RunResult], same: SameRuns) -> str:
    """Why two arms cannot be compared whatever their figures are; empty if they can."""
    names = a[0].arm, b[0].arm
    if names in same.arms or names[::-1] in same.arms:
        return "same run"
    for arm in names:
        if arm in same.seeds:
            return f"not decided, {_seeds(same.seeds[arm])} of {arm} are the same run"
    failed = [run for run in (*a, *b) if run.state == "failed"]
    if failed:
        return f"not decided, seed {failed[0].seed} of {failed[0].arm} failed"
    counts = [{run.seed for run in runs if run.state == "finished"} for runs in (a, b)]
    common = len(counts[0] & counts[1])
    if common < FEWEST_SEEDS:
        return f"nothing is decided by {common} seed{'' if common == 1 else 's'}; expected at least {FEWEST_SEEDS}"
    return ""


def _best(values: Sequence[float], better: Better) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return (min if better == "lower" else max)(numbers, default=math.nan)


def _worst(values: Sequence[float], better: Better) -> float:
    return (max if better == "lower" else min)(values)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"
