"""What a healthy run looks like: a table of criteria, and measurements judged by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sem.config import SEMConfig

Judged = TypeVar("Judged", "HealthRow", "RunRow")

ROUNDING = 1e-6
"""Difference of two means in float32 that says nothing."""


@dataclass(frozen=True)
class Criterion:
    """One quantity to watch.

    Attributes:
        name: what the quantity is called.
        expected: the healthy range, in words.
        healthy: whether a finite value is in it.
        metrics: the measured figures the quantity is made of; the first is the quantity itself, unless
            ``combine`` says otherwise.
        combine: the quantity from those figures, in order.
        worst: which of several finite values is nearest to being unhealthy, ``max`` or ``min``.
        limit: the end of the healthy range, where it is a number.
    """

    name: str
    expected: str
    healthy: Callable[[float], bool]
    metrics: tuple[str, ...] = ()
    combine: Callable[..., float] = lambda value: value
    worst: Callable[[Iterable[float]], float] = max
    limit: float | None = None

    def measure(self, figures: Mapping[str, float]) -> float | None:
        """The quantity, or None where ``figures`` lack what it is made of."""
        values = [figures.get(metric) for metric in self.metrics or (self.name,)]
        return None if any(value is None for value in values) else self.combine(*values)

    def accepts(self, value: float | None) -> bool:
        """Whether ``value`` is healthy; what is missing or not finite never is."""
        return value is not None and math.isfinite(value) and self.healthy(value)

    def judge(self, figures: Mapping[str, float]) -> HealthRow:
        """The row for ``figures``; a figure that is missing or not finite is never healthy."""
        value = self.measure(figures)
        return HealthRow(self.name, value, self.expected, self.accepts(value))

    def judge_run(self, steps: Iterable[Mapping[str, float]]) -> RunRow:
        """The row for a run: healthy if every step that measured the quantity was, and at least one did.

        Args:
            steps: figures of steps in order, each with its number under ``step``.
        """
        measured = [(value, int(step["step"])) for step in steps if (value := self.measure(step)) is not None]
        if not measured:
            return RunRow(self.name, self.expected, False)
        values = [value for value, _ in measured]
        broken = [index for index, value in enumerate(values) if not math.isfinite(value)]
        index = broken[0] if broken else values.index(self.worst(values))
        return RunRow(
            self.name,
            self.expected,
            all(map(self.accepts, values)),
            first=values[0],
            last=values[-1],
            mean=math.nan if broken else math.fsum(values) / len(values),
            worst=values[index],
            step=measured[index][1],
        )


@dataclass(frozen=True)
class HealthRow:
    """A criterion's verdict; ``value`` is None where nothing was measured."""

    name: str
    value: float | None
    expected: str
    passed: bool

    @property
    def text(self) -> str:
        """The value as a table shows it."""
        return "not measured" if self.value is None else f"{self.value:.4g}"


@dataclass(frozen=True)
class RunRow:
    """A criterion's verdict over a whole run.

    Attributes:
        first, last, mean: over the steps that measured the quantity; None where there is no such thing.
        worst: what decides; None where nothing was measured.
        step: where it was seen.
    """

    name: str
    expected: str
    passed: bool
    first: float | None = None
    last: float | None = None
    mean: float | None = None
    worst: float | None = None
    step: int | None = None

    @property
    def text(self) -> str:
        """The worst value as a message shows it."""
        if self.worst is None:
            return "not measured"
        return f"{self.worst:.4g}" if self.step is None else f"{self.worst:.4g} at step {self.step}"


def below(name: str, limit: float) -> Criterion:
    """``name`` must stay below ``limit``."""
    return Criterion(name, f"< {limit:g}", lambda value: value < limit, limit=limit)


def above(name: str, limit: float) -> Criterion:
    """``name`` must stay above ``limit``."""
    return Criterion(name, f"> {limit:g}", lambda value: value > limit, worst=min, limit=limit)


def finite(name: str) -> Criterion:
    """``name`` must be finite."""
    return Criterion(name, "finite", lambda value: True)


def rises(name: str, before: str, after: str) -> Criterion:
    """``after`` must not be below ``before``, up to :data:`ROUNDING`; the quantity is their difference."""
    return Criterion(
        name, "rises", lambda value: value >= -ROUNDING, (before, after), lambda b, a: a - b, worst=min, limit=0.0
    )


def wave_criteria(config: SEMConfig, *, thorough: bool = False) -> tuple[Criterion, ...]:
    """The table for a model made of unitary steps on a complex wave.

    Args:
        config: the model's. With transport, plans are expected to be sparse; with phase equalisation, the phases'
            entropy to rise.
        thorough: whether the measurement recomputes the solver's residual, see :class:`sem.diagnostics.Diagnostics`.

    Example:
        >>> rows = judge(wave_criteria(SEMConfig()), {"unitary_divergence": 2.66})
        >>> rows[0].name, rows[0].passed
        ('unitary_divergence', False)
    """
    moves = config.propagator.num_layers != 0
    plan = (above("sdr_sparsity", 0.3),) if config.encoder.kind == "transport" else ()
    solve = (below("unitarity_deviation", 1e-4), below("cg_residual", 1e-4))
    checked = (below("cg_true_residual", 1e-4),) if thorough else ()
    phases = (rises("phase_entropy", "phase_entropy_before", "phase_entropy_after"),)
    return (
        below("unitary_divergence", 2.0),
        *((*solve, *checked) if moves else ()),
        *plan,
        *((below("phase_coherence", 0.95),) if moves else ()),
        *(phases if moves and config.propagator.pit_enabled else ()),
    )


def judge(criteria: Iterable[Criterion], figures: Mapping[str, float]) -> list[HealthRow]:
    """One row per criterion, in order."""
    return [criterion.judge(figures) for criterion in criteria]


def failures(rows: Iterable[Judged]) -> list[Judged]:
    """The rows that did not pass."""
    return [row for row in rows if not row.passed]


class HealthWatch:
    """Tells when a quantity leaves its healthy range, once until it is back.

    Example:
        >>> watch = HealthWatch([below("cg_residual", 1e-4)])
        >>> watch.departures({"cg_residual": 0.5}), watch.departures({"cg_residual": 0.4})
        (['cg_residual is 0.5, expected: < 0.0001'], [])
    """

    def __init__(self, criteria: Iterable[Criterion]) -> None:
        self.criteria = tuple(criteria)
        self._unhealthy: set[str] = set()

    def departures(self, figures: Mapping[str, float]) -> list[str]:
        """One sentence for each quantity that was measured outside its range and was not before."""
        failed = [row for row in failures(judge(self.criteria, figures)) if row.value is not None]
        new = [row for row in failed if row.name not in self._unhealthy]
        self._unhealthy = {row.name for row in failed}
        return [f"{row.name} is {row.text}, expected: {row.expected}" for row in new]
