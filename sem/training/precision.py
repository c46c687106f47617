"""The autocast context that the configuration asks for, and no other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

MODES = ("32-true", "bf16-mixed", "selective-bf16")


def autocast_factory(mode: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What makes the context of a forward pass for ``training.precision_mode``.

    ``32-true`` switches autocast off, even where the caller had it on. The other modes switch bfloat16
    autocast on; stages that must stay in float32 leave it again by themselves.

    Raises:
        ValueError: ``mode`` is not one of :data:`MODES`.

    Example:
        >>> with autocast_factory("32-true", torch.device("cpu"))():
        ...     torch.is_autocast_enabled("cpu")
        False
    """
    if mode not in MODES:
        raise ValueError(f"precision_mode: expected one of {', '.join(MODES)}, got {mode!r}")
    if mode == "32-true":
        if not torch.amp.is_autocast_available(device.type):
            return nullcontext
        return functools.partial(torch.autocast, device.type, enabled=False)
    return functools.partial(torch.autocast, device.type, dtype=torch.bfloat16)
