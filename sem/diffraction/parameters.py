"""Float64 parameters, and the checks of what they start from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

MICROMETRE, MILLIMETRE, ANGSTROM = 1e-6, 1e-3, 1e-10
MILLIRADIAN = 1e-3
DEGREE = math.pi / 180


def parameter(value: float | Sequence[float] | Sequence[Sequence[float]] | Tensor) -> nn.Parameter:
    """A float64 parameter that does not ask for gradients until it is told to."""
    numbers = torch.as_tensor(value, dtype=torch.float64).detach()
    return nn.Parameter(numbers.clone(memory_format=torch.contiguous_format), requires_grad=False)


def positive(name: str, value: float, unit: str = "") -> float:
    """``value`` if it is finite and above 0.

    Raises:
        ValueError: it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a number > 0{unit and ' ' + unit}, got {value:g}")
    return float(value)


def nonnegative(name: str, value: float, unit: str = "") -> float:
    """``value`` if it is finite and not below 0.

    Raises:
        ValueError: it is below 0, infinite or NaN.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number >= 0{unit and ' ' + unit}, got {value:g}")
    return float(value)


def finite(name: str, values: Iterable[float], count: int) -> tuple[float, ...]:
    """``values`` as a tuple of ``count`` finite numbers.

    Raises:
        ValueError: another number of them, or one that is infinite or NaN.
    """
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"{name}: expected {count} finite numbers, got {' '.join(f'{value:g}' for value in numbers)}")
    return numbers


MOST_STEPS = 1_000_000
"""Most spindle angles, domains, sources: far beyond what anybody computes, and what a slip of an exponent asks for."""


def count(name: str, value: int, most: int | None = None) -> int:
    """``value`` if it is a whole number from 1 to ``most``.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name}: expected a whole number >= 1, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name}: expected at most {most}, got {value}")
    return int(value)


def choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """``value`` if it is one of ``allowed``.

    Raises:
        ValueError: it is not.
    """
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return value
