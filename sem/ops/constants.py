"""Tensors that are what they are: neither learned nor saved, and there before a model has a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CPU = torch.device("cpu")


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Tensors made here are with data, on the CPU, and no tensors of inference mode, which no later training step could
    save, whatever mode or default device the caller is in: what is kept outlives both."""
    with torch.inference_mode(False), torch.no_grad(), CPU:
        yield


class Constant:
    """A tensor on the CPU, and its copies on the devices that asked for it.

    Unlike a buffer of a module it needs no device at construction and no place in a checkpoint: a model that is built
    on the meta device and filled later has it.

    Args:
        value: is copied.

    Example:
        >>> with torch.inference_mode():
        ...     three = Constant(torch.arange(3))
        >>> three.on(torch.device("cpu")), three.on(torch.device("cpu")).is_inference()
        (tensor([0, 1, 2]), False)
    """

    def __init__(self, value: Tensor) -> None:
        with plain_tensors():
            self._copies = {CPU: value.detach().to(CPU, copy=True)}

    def on(self, device: torch.device) -> Tensor:
        """The tensor on ``device``, copied there once."""
        copy = self._copies.get(device)
        if copy is None:
            with plain_tensors():
                copy = self._copies[CPU].to(device)
            if type(copy) is Tensor:  # not one of a tracer's
                self._copies[device] = copy
        return copy
