"""Where two traces part: the first quantity, in the order of the computation, on which they differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sem.trace.c_program import aligned
from sem.trace.record import Entry, Trace


@dataclass(frozen=True)
class Row:
    """One quantity of both traces, or of one alone.

    Attributes:
        name: its name; from the second time that it occurs on, with ``#2``, ``#3`` ... behind it.
        left, right: its values; None where a trace does not have it.
        error: largest difference over the largest magnitude on either side; 0 where all are equal (NaN equals NaN),
            inf where one side is not finite or has more values; None if a side is missing.
        differs: whether the error is above the tolerance.
    """

    name: str
    left: tuple[float, ...] | None
    right: tuple[float, ...] | None
    error: float | None
    differs: bool

    @property
    def worst(self) -> int:
        """The place of the largest difference."""
        pairs = list(zip_longest(self.left or (), self.right or (), fillvalue=math.nan))
        return max(range(len(pairs)), key=lambda at: _distance(*pairs[at]), default=0)


@dataclass(frozen=True)
class Comparison:
    """The quantities of two traces, those of the first in its order, then what only the second has."""

    rows: Sequence[Row]
    tolerance: float

    @property
    def first_divergence(self) -> Row | None:
        """The earliest quantity that differs."""
        return next((row for row in self.rows if row.differs), None)

    @property
    def compared(self) -> int:
        """How many quantities both traces have."""
        return sum(row.error is not None for row in self.rows)


def compare(left: Trace, right: Trace, tolerance: float = 1e-6, absolute: float = 0.0) -> Comparison:
    """Align two traces by name, equal names by their turn, and compare what both have.

    A quantity differs when ``max |a - b| > tolerance max(|a|, |b|) + absolute``, the maxima over its values, or when
    its number of values does. Where one trace is the C program nanoBragg's, the other's steps take its names (see
    :func:`sem.trace.c_program.aligned`). ``absolute`` is for what is rounding noise itself, such as residuals.

    Raises:
        ValueError: a tolerance is negative or NaN, or the traces have no name in common.

    Example:
        >>> one = Trace(entries=[Entry("x", (1.0,)), Entry("y", (2.0,)), Entry("z", (4.0,))])
        >>> two = Trace(entries=[Entry("x", (1.0,)), Entry("y", (2.5,)), Entry("z", (5.0,))])
        >>> compare(one, two).first_divergence.name
        'y'
    """
    for label, value in (("tolerance", tolerance), ("absolute", absolute)):
        if not value >= 0:
            raise ValueError(f"{label}: expected a number >= 0, got {value}")
    left, right = aligned(left, right)
    first, second = _by_turn(left.entries), _by_turn(right.entries)
    rows = [_row(name, values, second.get(name), tolerance, absolute) for name, values in first.items()]
    rows += [Row(name, None, values, None, False) for name, values in second.items() if name not in first]
    result = Comparison(rows, tolerance)
    if not result.compared:
        names = [next(iter(side)) if side else "nothing" for side in (first, second)]
        raise ValueError(
            f"the traces have no name in common: the first begins with {names[0]}, the other with {names[1]}"
        )
    return result


def _by_turn(entries: Iterable[Entry]) -> dict[str, tuple[float, ...]]:
    seen: Counter[str] = Counter()
    result = {}
    for name, values in entries:
        seen[name] += 1
        result[name if seen[name] == 1 else f"{name}#{seen[name]}"] = values
    return result


def _row(name: str, left: tuple[float, ...], right: tuple[float, ...] | None, tolerance: float, absolute: float) -> Row:
    if right is None:
        return Row(name, left, right, None, False)
    if len(left) != len(right):
        return Row(name, left, right, math.inf, True)
    distance = max(map(_distance, left, right), default=0.0)
    size = max((abs(value) for value in (*left, *right) if math.isfinite(value)), default=0.0)
    error = distance / size if distance > 0 and size > 0 else distance
    return Row(name, left, right, error, distance > tolerance * size + absolute)


def _distance(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    distance = abs(a - b)
    return math.inf if math.isnan(distance) else distance
