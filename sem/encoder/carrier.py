"""The carrier: every channel turned by its position, as fast as its place among the channels says."""

from __future__ import annotations

import torch
from torch import Tensor

from sem.ops.constants import Constant

_BASE = 10000.0


class Carrier:
    """``exp(i position rate_d)`` with ``rate_d = 10000^(-d / D)``, on waves of ``dim = D`` channels.

    Args:
        dim: channels of a wave.
        on: whether there is one; without it :meth:`turn` returns its wave as it is.

    Example:
        >>> carrier, wave = Carrier(4), torch.ones(1, 3, 4, dtype=torch.complex64)
        >>> turned = carrier.turn(wave, torch.arange(3))
        >>> torch.allclose(carrier.turn(turned, -torch.arange(3)), wave)
        True
    """

    def __init__(self, dim: int, on: bool = True) -> None:
        self.on = on
        channels = torch.arange(dim, device="cpu")
        self._rates = Constant(_BASE ** (-channels / dim) if on else torch.zeros_like(channels, dtype=torch.float32))

    def rates(self, device: torch.device) -> Tensor:
        """Radians per position, float32 ``[dim]``; zeros without a carrier."""
        return self._rates.on(device)

    def turn(self, wave: Tensor, positions: Tensor) -> Tensor:
        """Complex ``wave [..., S, dim]`` at the integer ``positions [..., S]``."""
        if not self.on:
            return wave
        angle = positions.unsqueeze(-1) * self.rates(positions.device)
        return wave * torch.complex(angle.cos(), angle.sin())
