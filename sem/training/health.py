"""What a healthy run looks like: a table of criteria, and measurements judged by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

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
    """

    name: str
    expected: str
    healthy: Callable[[float], bool]
    metrics: tuple[str, ...] = ()
    combine: Callable[..., float] = lambda value: value

    def judge(self, figures: Mapping[str, float]) -> HealthRow:
        """The row for ``figures``; a figure that is missing or not finite is never healthy."""
        values = [figures.get(metric) for metric in self.metrics or (self.name,)]
        if any(value is None for value in values):
            return HealthRow(self.name, None, self.expected, False)
        value = self.combine(*values)
        return HealthRow(self.name, value, self.expected, math.isfinite(value) and self.healthy(value))


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


def below(name: str, limit: float) -> Criterion:
    """``name`` must stay below ``limit``."""
    return Criterion(name, f"< {limit:g}", lambda value: value < limit)


def above(name: str, limit: float) -> Criterion:
    """``name`` must stay above ``limit``."""
    return Criterion(name, f"> {limit:g}", lambda value: value > limit)


def finite(name: str) -> Criterion:
    """``name`` must be finite."""
    return Criterion(name, "finite", lambda value: True)


def rises(name: str, before: str, after: str) -> Criterion:
    """``after`` must not be below ``before``, up to :data:`ROUNDING`; the quantity is their difference."""
    return Criterion(name, "rises", lambda value: value >= -ROUNDING, (before, after), lambda b, a: a - b)


def wave_criteria(*, pit_enabled: bool = True) -> tuple[Criterion, ...]:
    """The table for a model made of unitary steps on a complex wave.

    Args:
        pit_enabled: whether phases are equalised, so that their entropy is expected to rise.

    Example:
        >>> rows = judge(wave_criteria(), {"unitary_divergence": 2.66})
        >>> rows[0].name, rows[0].passed
        ('unitary_divergence', False)
    """
    criteria = (
        below("unitary_divergence", 2.0),
        below("unitarity_deviation", 1e-4),
        below("cg_residual", 1e-4),
        above("sdr_sparsity", 0.3),
        below("phase_coherence", 0.95),
    )
    entropy = rises("phase_entropy", "phase_entropy_before", "phase_entropy_after")
    return (*criteria, entropy) if pit_enabled else criteria


def judge(criteria: Iterable[Criterion], figures: Mapping[str, float]) -> list[HealthRow]:
    """One row per criterion, in order."""
    return [criterion.judge(figures) for criterion in criteria]


def failures(rows: Iterable[HealthRow]) -> list[HealthRow]:
    """The rows that did not pass."""
    return [row for row in rows if not row.passed]
