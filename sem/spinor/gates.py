"""What changes a token by itself: the gated rotation and the magnitude gate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sem.layers import RealReadout, complex_of, intensity, pair_sum, real_blocks, real_matrix
from sem.spinor.products import map_groups

_GATE_SLOPE = 1.7015


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
        rows = real_blocks(x)
        matrix = real_matrix(self.blocks)
        turn = matrix - torch.eye(matrix.shape[-1], device=matrix.device)
        moved = map_groups(rows.reshape(-1, len(turn), turn.shape[-1]), turn)
        return _AddGated.apply(x, complex_of(moved.view_as(rows)), self.gate(x).float())


class _AddGated(Function):
    """``x + sigmoid(1.7015 logits) moved``, ``x`` and ``moved`` complex."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, moved: Tensor, logits: Tensor) -> Tensor:
        gate = (_GATE_SLOPE * logits).sigmoid_()
        ctx.save_for_backward(moved, gate)
        return (moved * gate).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved, gate = ctx.saved_tensors
        grad_gate = pair_sum(real_blocks(grad) * real_blocks(moved))
        steepness = torch.addcmul(gate, gate, gate, value=-1).mul_(_GATE_SLOPE)
        return grad, grad * gate, grad_gate.mul_(steepness)


def magnitude_gate(x: Tensor, theta: Tensor) -> Tensor:
    """``x (1 - exp(-|x|^2 e^theta))`` on complex ``[..., D]``: small entries are suppressed, phases kept.

    ``theta`` is real ``[D]``.
    """
    return _MagnitudeGate.apply(x, theta)


class _MagnitudeGate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor) -> Tensor:
        passed = intensity(x).mul_(-theta.exp()).expm1_().neg_()
        ctx.save_for_backward(x, theta, passed)
        return x * passed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, theta, passed = ctx.saved_tensors
        rate = theta.exp()
        # d out = passed dx + x (1 - passed) d(|x|^2 e^theta)
        held = pair_sum(real_blocks(grad) * real_blocks(x)).mul_(1 - passed).mul_(rate)
        grad_theta = (intensity(x).mul_(held)).flatten(0, -2).sum(0)
        return (grad * passed).add_(x * held.mul_(2)), grad_theta
