"""What moved between two measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sem.activations.moments import PERCENTILES, Number
from sem.activations.record import Activations

NOT_COMPARED = ("count", "channels", "percentile_error")
"""What tells of the data and of the measurement, not of what a layer does."""
_RARE, _FEW = ("zero_share", "dead_share"), 0.01
_PLACES = ("mean", "min", "max", *(f"p{percent}" for percent in PERCENTILES))


@dataclass(frozen=True)
class Change:
    """A statistic of a layer or block that is not what it was.

    Attributes:
        name: of the layer or block.
        statistic: its name.
        before, after: its values; None where it was not defined.
        relative: the size of the change, see :func:`compare`; inf where one of the two is None.
    """

    name: str
    statistic: str
    before: Number
    after: Number
    relative: float


@dataclass(frozen=True)
class Comparison:
    """What moved between two measurements, and what cannot be told.

    Attributes:
        changes: the largest first.
        compared: how many statistics were.
        only_first, only_second: names of layers and blocks that one of them lacks.
    """

    changes: Sequence[Change]
    compared: int
    only_first: Sequence[str]
    only_second: Sequence[str]


def compare(first: Activations, second: Activations, tolerance: float = 1e-6) -> Comparison:
    """What moved from ``first`` to ``second``.

    The relative change of a statistic is ``abs(b - a) / max(abs(a), abs(b))``. Statistics that say *where* numbers lie
    (mean, minimum, maximum, percentiles) may be anywhere near 0 by chance, so their changes are taken relative to the
    layer's standard deviation where that is larger; those of phases relative to pi, of ``phase_mean`` the shorter way
    around the circle; those of ``zero_share`` and ``dead_share`` relative to 1 % where they are smaller. Counts and
    ``percentile_error`` are not compared.

    Args:
        tolerance: relative changes up to this are none.

    Raises:
        ValueError: ``tolerance`` is negative or NaN, or they have no layer or block in common.

    Example:
        >>> before = Activations(layers={"a": {"mean": 0.0, "std": 1.0}, "b": {"std": 1.0}})
        >>> after = Activations(layers={"a": {"mean": 0.01, "std": 4.0}})
        >>> found = compare(before, after)
        >>> [(change.statistic, change.relative) for change in found.changes], found.only_first
        ([('std', 0.75), ('mean', 0.0025)], ('b',))
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance: expected a number >= 0, got {tolerance}")
    one, two = ({**side.layers, **_apart(side)} for side in (first, second))
    shared = [name for name in one if name in two]
    if not shared:
        raise ValueError(f"expected a layer that both have: the first has {_listed(one)}, the second {_listed(two)}")
    changes, compared = [], 0
    for name in shared:
        for statistic in dict.fromkeys((*one[name], *two[name])):
            if statistic in NOT_COMPARED or statistic.endswith("percentile_error"):
                continue
            compared += 1
            before, after = one[name].get(statistic), two[name].get(statistic)
            relative = _relative(statistic, before, after, _scale(statistic, one[name], two[name]))
            if relative > tolerance:
                changes.append(Change(name, statistic, before, after, relative))
    changes.sort(key=lambda change: -change.relative)
    only_first, only_second = ([n for n in a if n not in b] for a, b in ((one, two), (two, one)))
    return Comparison(changes, compared, tuple(only_first), tuple(only_second))


def _apart(side: Activations) -> dict[str, Mapping[str, Number]]:
    """The blocks, under names that no layer has."""
    return {f"block {name}": values for name, values in side.blocks.items()}


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"


def _scale(statistic: str, one: Mapping[str, Number], two: Mapping[str, Number]) -> float:
    if statistic.startswith("phase_"):
        return math.pi
    if statistic in _RARE:
        return _FEW
    prefix = "amplitude_" if statistic.startswith("amplitude_") else ""
    if statistic.removeprefix(prefix) not in _PLACES:
        return 0.0
    return max(side.get(f"{prefix}std") or 0.0 for side in (one, two))


def _relative(statistic: str, before: Number, after: Number, scale: float) -> float:
    if before is None or after is None:
        return 0.0 if before is after else math.inf
    distance = abs(after - before)
    if statistic == "phase_mean":
        distance = min(distance, 2 * math.pi - distance)
    size = max(abs(before), abs(after), scale) if statistic != "phase_mean" else math.pi
    return distance / size if distance else 0.0
