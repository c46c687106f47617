"""Building blocks of the stages that are plain torch: complex linear maps and norms.

A complex vector has two real forms here. *Interleaved* ``[..., 2 D]`` is the memory of complex64: re, im, re, im, ...
*Planar* ``[..., 2 D]`` is all real parts, then all imaginary parts; elementwise work on it runs along contiguous
memory, which on a CPU is several times faster than on pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def intensity(z: Tensor) -> Tensor:
    """``|z|^2`` of complex64 ``z``, float32."""
    real, imag = torch.view_as_real(z).unbind(-1)
    return real.square() + imag.square()


def planar_intensity(planes: Tensor) -> Tensor:
    """``|z|^2`` from planar ``[..., 2 D]``, ``[..., D]``."""
    real, imag = planes.chunk(2, dim=-1)
    return real.square() + imag.square()


def scale_planes(planes: Tensor, factor: Tensor) -> Tensor:
    """Multiplies planar ``[..., 2 D]`` by real ``[..., D]``."""
    return (planes.unflatten(-1, (2, -1)) * factor.unsqueeze(-2)).flatten(-2)


def real_matrix(weight: Tensor, planar_in: bool = False, planar_out: bool = False) -> Tensor:
    """The real matrix ``[..., 2 out, 2 in]`` of the complex one ``W = R + iJ`` given as ``weight [..., out, in, 2]``.

    The pair (re, im) of an output is ``[[R, -J], [J, R]]`` applied to the pair of an input.
    """
    real, imag = weight.unbind(-1)
    columns = -2 if planar_in else -1
    to_real = torch.stack([real, -imag], columns).flatten(-2)
    to_imag = torch.stack([imag, real], columns).flatten(-2)
    return torch.stack([to_real, to_imag], -3 if planar_out else -2).flatten(-3, -2)


class ComplexLinear(nn.Module):
    """A linear map of complex vectors, ``[..., in_features]`` to ``[..., out_features]``, complex64, no bias.

    ``weight`` is ``[out, in, 2]`` (real and imaginary part), normal with variance ``gain^2 / in`` of the complex entry.
    The product is one real one on ``[..., 2 in]``, which costs what the four real products of a complex one cost.
    """

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features, 2) * gain / (2 * in_features) ** 0.5)

    def forward(self, z: Tensor) -> Tensor:
        blocks = torch.view_as_real(z).flatten(-2)
        out = functional.linear(blocks, real_matrix(self.weight)).float()
        return torch.view_as_complex(out.unflatten(-1, (-1, 2)))


class ComplexRMSNorm(nn.Module):
    """``z * gamma / (rms + eps)`` per token, with the RMS over active entries (``|z|^2 > 1e-12``).

    Takes and returns complex64 ``[..., dim]``; ``gamma`` is real ``[dim]``. :meth:`planes` returns planar
    ``[..., 2 dim]`` instead.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def planes(self, z: Tensor) -> Tensor:
        planes = torch.cat([z.real, z.imag], -1)
        power = planar_intensity(planes)
        active = (power > 1e-12).sum(-1, keepdim=True).clamp_min(1)
        # the floor keeps the square root differentiable for an all-zero token
        rms = (power.sum(-1, keepdim=True) / active).clamp_min(1e-24).sqrt()
        return scale_planes(planes, self.gamma / (rms + self.eps))

    def forward(self, z: Tensor) -> Tensor:
        real, imag = self.planes(z).chunk(2, dim=-1)
        return torch.complex(real, imag)
