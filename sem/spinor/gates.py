"""What changes a token by itself: the gated rotation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sem.layers import RealReadout
from sem.ops import gated_rotation


class GatedBlockRotation(nn.Module):
    """``x + g (U x - x)`` with ``g = sigmoid(1.7015 Lin([Re x, Im x]))`` real and U complex, block-diagonal, near the
    identity at the start. Complex ``[..., dim]`` to the same."""

    def __init__(self, dim: int, block_size: int) -> None:
        super().__init__()
        self.gate = RealReadout(dim, dim)
        noise = 0.2 * torch.randn(dim // block_size, block_size, block_size, 2) / math.sqrt(block_size)
        noise[..., 0] += torch.eye(block_size)
        self.blocks = nn.Parameter(noise)
        self.blocks._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        return gated_rotation(x, self.gate(x), self.blocks)
