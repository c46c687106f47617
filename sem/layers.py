"""Building blocks of the stages that are plain torch: complex linear maps and norms.

A complex vector ``[..., D]`` has one layout everywhere, that of complex64; its *real blocks* ``[..., 2 D]`` (re, im,
re, im, ...) are the same memory. Real matrix products take the blocks as they lie, so no stage copies a wave to give it
another form. What runs along a wave element by element is an autograd function with its backward written out: recorded
one operation at a time it would take two to four times as many passes over memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

_ACTIVE = 1e-12
_LEAST_MEAN = 1e-24


def real_blocks(z: Tensor) -> Tensor:
    """Complex ``[..., D]`` as real ``[..., 2 D]``; the same memory where ``z`` is contiguous."""
    return torch.view_as_real(z.resolve_conj()).flatten(-2)


def complex_of(blocks: Tensor) -> Tensor:
    """Real blocks ``[..., 2 D]`` as complex ``[..., D]``, the same memory."""
    return torch.view_as_complex(blocks.unflatten(-1, (-1, 2)))


def pair_sum(blocks: Tensor) -> Tensor:
    """Sums of neighbours, ``[..., 2 D]`` to ``[..., D]``: ``|z|^2`` from squares, ``Re(conj(y) z)`` from products."""
    first, second = blocks.unflatten(-1, (-1, 2)).unbind(-1)
    return first + second


def intensity(z: Tensor) -> Tensor:
    """``|z|^2`` of complex64 ``z``, float32."""
    return pair_sum(real_blocks(z).square())


def real_matrix(weight: Tensor) -> Tensor:
    """The real matrix ``[..., 2 out, 2 in]`` on blocks of the complex one given as ``weight [..., out, in, 2]``."""
    conjugate = torch.view_as_complex(weight).conj()
    rows = torch.stack([conjugate, 1j * conjugate], -2)  # as many pairs: (R, -J) gives the real part, (J, R) the other
    return torch.view_as_real(rows).flatten(-2).flatten(-3, -2)


class ComplexLinear(nn.Module):
    """A linear map of complex vectors, ``[..., in_features]`` to ``[..., out_features]``, complex64, no bias.

    ``weight`` is ``[out, in, 2]`` (real and imaginary part), normal with variance ``gain^2 / in`` of the complex entry.
    The product is one real one on ``[..., 2 in]``, which costs what the four real products of a complex one cost.
    """

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features, 2) * gain / (2 * in_features) ** 0.5)

    def forward(self, z: Tensor) -> Tensor:
        return complex_of(functional.linear(real_blocks(z), real_matrix(self.weight)).float())


class RealReadout(nn.Linear):
    """A real affine map of ``[Re z, Im z]``, complex ``[..., dim]`` to real ``[..., out_features]``.

    ``weight`` is ``[out, 2 dim]``, the columns of the real parts first. Its columns are brought into the order of real
    blocks, not the wave into theirs.
    """

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__(2 * dim, out_features)

    def forward(self, z: Tensor) -> Tensor:
        columns = self.weight.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
        return functional.linear(real_blocks(z), columns, self.bias)


class ComplexRMSNorm(nn.Module):
    """``z * gamma / (rms + eps)`` per token, with the RMS over active entries (``|z|^2 > 1e-12``).

    Takes and returns complex64 ``[..., dim]``; ``gamma`` is real ``[dim]``.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, z: Tensor) -> Tensor:
        return _Normalise.apply(z, self.gamma, self.eps)


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, gamma: Tensor, eps: float) -> Tensor:
        blocks = real_blocks(z)
        power = pair_sum(blocks.square())
        # compared into float: a tensor of booleans would cost more than all the rest of the norm
        active = torch.gt(power, _ACTIVE, out=torch.empty_like(power)).sum(-1, keepdim=True).clamp_min(1)
        mean = power.sum(-1, keepdim=True) / active
        # the floor keeps the square root differentiable for an all-zero token
        rms = mean.clamp_min(_LEAST_MEAN).sqrt()
        scale = 1 / (rms + eps)
        # d scale = -slope Re(conj(z) dz)
        slope = torch.where(mean >= _LEAST_MEAN, scale.square() / (active * rms), 0)
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
