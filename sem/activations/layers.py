"""The layers of a model by name."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TypeGuard

import torch
from torch import Tensor, nn

MODEL = "(model)"
"""The name of the model itself; no submodule can have it."""


def layers_of(model: nn.Module, pattern: str = "*") -> dict[str, nn.Module]:
    """The modules of ``model``, itself included as ``(model)``, whose names match ``pattern``.

    Args:
        pattern: as of a shell: ``*`` is any text, dots included, ``?`` any character, ``[ab]`` one of some.

    Raises:
        ValueError: no name matches.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.GELU())
        >>> list(layers_of(model)), list(layers_of(model, "1"))
        (['(model)', '0', '1'], ['1'])
    """
    named = {name or MODEL: module for name, module in model.named_modules()}
    chosen = {name: module for name, module in named.items() if fnmatchcase(name, pattern)}
    if not chosen:
        raise ValueError(f"layers = {pattern!r}: expected a pattern of some of {', '.join(named)}")
    return chosen


def first_tensor(values: Iterable[object]) -> Tensor | None:
    """The first tensor of numbers among ``values``, real or complex."""
    for value in values:
        if holds_numbers(value):
            return value
    return None


def holds_numbers(output: object) -> TypeGuard[Tensor]:
    """Whether ``output`` is a tensor of floating or complex numbers."""
    return isinstance(output, Tensor) and (output.is_floating_point() or output.is_complex())


def widened(values: Tensor) -> Tensor:
    """``values`` in double precision: where they are, but on the CPU where they lie on a device that may lack it."""
    values = values.detach()
    if values.device.type not in ("cpu", "cuda"):
        values = values.cpu()
    return values.resolve_conj().to(torch.complex128) if values.is_complex() else values.double()
