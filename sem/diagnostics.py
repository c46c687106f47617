"""Collects what a model reports about itself during a pass: an explicit argument, never hidden state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "max", "sum"]

_REDUCE: dict[Reduction, Callable[[Tensor], Tensor]] = {"mean": torch.mean, "max": torch.amax, "sum": torch.sum}


class Diagnostics:
    """Records scalars by name and reduces those of the same name.

    Values stay on their device, without a wait, until :meth:`summary` is called. A module that gets no ``Diagnostics``
    computes nothing for them.

    Args:
        thorough: asks modules to verify in float64, from what went in and came out, what their kernels say of
            themselves. It costs more than a routine measurement.

    Example:
        >>> diagnostics = Diagnostics()
        >>> diagnostics.record("residual", torch.tensor([1e-6, 3e-6]), "max")
        >>> diagnostics.record("residual", torch.tensor([2e-6]), "max")
        >>> round(diagnostics.summary()["residual"] * 1e6)
        3
    """

    def __init__(self, *, thorough: bool = False) -> None:
        self.thorough = thorough
        self._values: dict[str, tuple[Reduction, list[Tensor]]] = {}

    def record(self, name: str, value: Tensor, reduction: Reduction = "mean") -> None:
        """Add ``value`` (any shape; reduced to one number here) under ``name``."""
        value = value.detach().float()
        if value.numel() == 0:
            return
        reduced = _REDUCE[reduction](value)
        held = self._values.setdefault(name, (reduction, []))
        if held[0] != reduction:
            raise ValueError(f"{name}: recorded with reduction {held[0]!r} before, now {reduction!r}")
        held[1].append(reduced)

    def summary(self) -> dict[str, float]:
        """All records as numbers, in the order of first appearance."""
        result = {}
        for name, (reduction, values) in self._values.items():
            result[name] = float(_REDUCE[reduction](torch.stack(values)))
        return result
