"""What changes a token by itself: the gated rotation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.layers import Affine, RealReadout
from sem.ops.gated_rotation import gated_rotation_forward


class RotationWeights(NamedTuple):
    """A gated rotation as it is computed: ``gate`` on real blocks, the blocks of U."""

    gate: Affine
    blocks: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Of real blocks ``[N, dim, 2]``."""
        return gated_rotation_forward(x, functional.linear(x.flatten(1), *self.gate).float(), self.blocks)


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

    def weights(self) -> RotationWeights:
        """What the rotation computes with, from its parameters."""
        return RotationWeights(self.gate.affine(), self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.view_as_real(x.resolve_conj()).flatten(0, -3)
        return torch.view_as_complex(self.weights().rotate(rows)).view(x.shape)
