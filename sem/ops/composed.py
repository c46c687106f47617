"""The token-wise operators composed of torch's own, for devices on which sem has no kernel of theirs.

Each is an autograd function with its backward written out: recorded one operation at a time it would take two to four
times as many passes over memory. complex64 and complex128.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sem.ops.blocks import complex_of, intensity, pair_sum, real_blocks, real_matrix

GATE_SLOPE = 1.7015
ACTIVE = 1e-12
LEAST_MEAN = 1e-24


def stands_in(tensor: Tensor) -> bool:
    """Whether these functions compute where ``tensor`` is: everywhere but on the CPU."""
    return tensor.device.type != "cpu"


def complex_rms_norm(z: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """As :func:`sem.ops.complex_rms_norm`; complex ``z``."""
    return _Normalise.apply(z, gamma, eps)


def gated_rotation(x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
    """As :func:`sem.ops.gated_rotation`; complex ``x``, real ``blocks [G, b, b, 2]``."""
    return _GatedRotation.apply(x, logits, blocks)


def causal_conv(x: Tensor, taps: Tensor, bias: Tensor, theta: Tensor | None, history: Tensor | None) -> Tensor:
    """As :func:`sem.ops.causal_conv`; complex ``x``, ``taps``, ``bias`` and ``history``."""
    if history is None:
        after = _Convolve.apply(x, taps, bias)
    else:
        after = _Convolve.apply(torch.cat([history, x], 1), taps, bias)[:, len(taps) - 1 :]
    return after if theta is None else magnitude_gate(after, theta)


def magnitude_gate(x: Tensor, theta: Tensor) -> Tensor:
    """``x (1 - exp(-|x|^2 e^theta))`` on complex ``[..., D]``, ``theta`` real ``[D]``: small entries are suppressed,
    phases kept."""
    return _MagnitudeGate.apply(x, theta)


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: Tensor, eps: float) -> Tensor:
        blocks = real_blocks(z)
        power = pair_sum(blocks.square())
        # compared into float: a tensor of booleans would cost more than all the rest of the norm
        active = torch.gt(power, ACTIVE, out=torch.empty_like(power)).sum(-1, keepdim=True).clamp_min(1)
        mean = power.sum(-1, keepdim=True) / active
        # the floor keeps the square root differentiable for an all-zero token
        rms = mean.clamp_min(LEAST_MEAN).sqrt()
        scale = 1 / (rms + eps)
        # d scale = -slope Re(conj(z) dz)
        slope = torch.where(mean >= LEAST_MEAN, scale.square() / (active * rms), 0)
        ctx.save_for_backward(z, gamma, scale, slope)
        return complex_of((blocks * scale).mul_(gamma.repeat_interleave(2)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        z, gamma, scale, slope = ctx.saved_tensors
        blocks, wide = real_blocks(z), gamma.repeat_interleave(2)
        grad_blocks = real_blocks(grad) * wide
        along = grad_blocks * blocks
        grad_scale = along.sum(-1, keepdim=True)
        torch.mul(real_blocks(grad), blocks, out=along).mul_(scale)
        grad_gamma = pair_sum(along.flatten(0, -2).sum(0))
        grad_blocks.mul_(scale).addcmul_(blocks, grad_scale.mul_(slope), value=-1)
        return complex_of(grad_blocks), grad_gamma, None


class _GatedRotation(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
        matrix = real_matrix(blocks)
        turn = matrix - torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        moved = _map_blocks(x, turn.transpose(1, 2))
        gate = (GATE_SLOPE * logits).sigmoid_()
        ctx.save_for_backward(x, moved, gate, turn)
        return (moved * gate).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, moved, gate, turn = ctx.saved_tensors
        steepness = torch.addcmul(gate, gate, gate, value=-1).mul_(GATE_SLOPE)
        grad_logits = pair_sum(real_blocks(grad) * real_blocks(moved)).mul_(steepness)
        held = grad * gate
        left, right = (real_blocks(z).reshape(-1, *turn.shape[:2]).transpose(0, 1) for z in (held, x))
        with _full_precision(x):
            outer = torch.bmm(left.transpose(1, 2), right).unflatten(1, (-1, 2)).unflatten(-1, (-1, 2))
        to_real = outer[:, :, 0, :, 0] + outer[:, :, 1, :, 1]
        to_imag = outer[:, :, 1, :, 0] - outer[:, :, 0, :, 1]
        return _map_blocks(held, turn).add_(grad), grad_logits, torch.stack([to_real, to_imag], -1)


def _map_blocks(z: Tensor, matrices: Tensor) -> Tensor:
    """The real blocks of ``z``, cut into groups, times ``matrices [G, in, out]``; in full precision under autocast."""
    rows = real_blocks(z).reshape(-1, *matrices.shape[:2])
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    with _full_precision(z):
        torch.bmm(rows.transpose(0, 1), matrices, out=out.transpose(0, 1))
    return complex_of(out.view(*z.shape[:-1], -1))


def _full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class _Convolve(Function):
    """``out_t = bias + sum_k taps_k x_{t + k - width + 1}``, with zeros before the first position. By hand because each
    slice of a recorded sum costs a full-size buffer in the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps)
        out = torch.addcmul(bias, x, taps[-1])
        for at, before, tap in _lags(x.shape[1], taps):
            out[:, at].addcmul_(x[:, before], tap)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, taps = ctx.saved_tensors
        turned = taps.conj_physical()
        mirrored = grad.conj_physical()
        grad_x = grad * turned[-1]
        grad_taps = torch.zeros_like(taps)
        grad_taps[-1] = (mirrored * x).sum((0, 1))
        for lag, (at, before, tap) in enumerate(_lags(x.shape[1], turned), 1):
            grad_x[:, before].addcmul_(grad[:, at], tap)
            grad_taps[-1 - lag] = (mirrored[:, at] * x[:, before]).sum((0, 1))
        return grad_x, grad_taps.conj_physical_(), grad.sum((0, 1))


def _lags(length: int, taps: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Positions, those that a tap other than the last takes to them, and the tap."""
    for lag in range(1, min(len(taps), length)):
        yield slice(lag, None), slice(None, length - lag), taps[-1 - lag]


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
