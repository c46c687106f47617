"""Building blocks that the stages share: complex linear maps and norms.

Real matrix products take an interleaved wave (:mod:`sem.ops.blocks`) as it lies, so no stage copies a wave to
give it another form.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.ops import complex_rms_norm
from sem.ops.blocks import complex_of, interleaved, pair_sum, real_matrix

__all__ = [
    "Affine",
    "ComplexLinear",
    "ComplexRMSNorm",
    "NormWeights",
    "RealReadout",
    "WidelyLinear",
    "complex_of",
    "pair_sum",
    "interleaved",
    "real_matrix",
]


class _BlockMap(nn.Module):
    """A map of complex vectors, ``[..., in_features]`` to ``[..., out_features]``, complex64, no bias, by a real matrix
    on their real blocks; subclasses say which."""

    weight: nn.Parameter

    def matrix(self, scale: Tensor | None = None) -> Tensor:
        """The real matrix ``[2 out, 2 in]``, or ``scale`` times it: a scalar is taken into the weights, which are
        smaller than the wave."""
        raise NotImplementedError

    def forward(self, z: Tensor, scale: Tensor | None = None) -> Tensor:
        """The map of ``z``, or ``scale`` times that."""
        return complex_of(functional.linear(interleaved(z), self.matrix(scale)).float())

    def _scaled(self, scale: Tensor | None) -> Tensor:
        if scale is None:
            return self.weight
        # A column of the scalar: its gradient is summed row by row, then over rows, in an order that does not depend on
        # the number of threads. Torch splits one long sum among them.
        return scale.expand(len(self.weight)).view(-1, *[1] * (self.weight.dim() - 1)) * self.weight


class ComplexLinear(_BlockMap):
    """``W z``, a linear map.

    ``weight`` is ``[out, in, 2]`` (real and imaginary part), normal with variance ``gain^2 / in`` of the complex entry.
    The product is one real one on ``[..., 2 in]``, which costs what the four real products of a complex one cost.

    Example:
        >>> layer, z = ComplexLinear(4, 3), torch.randn(2, 4, dtype=torch.complex64)
        >>> torch.allclose(layer(z), z @ torch.view_as_complex(layer.weight).mT, atol=1e-6)
        True
    """

    def __init__(self, in_features: int, out_features: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features, 2) * gain / (2 * in_features) ** 0.5)
        self.weight._linear_map = "complex"  # type: ignore[attr-defined]

    def matrix(self, scale: Tensor | None = None) -> Tensor:
        return real_matrix(self._scaled(scale))


class WidelyLinear(_BlockMap):
    """``W z + V conj(z)``, a widely linear map: any map that is linear over the real numbers. It costs what ``W z``
    costs, and has twice the parameters.

    ``weight`` is ``[2 out, 2 in]`` on real blocks, normal with variance ``1 / (2 in)``.

    Example:
        >>> layer, z = WidelyLinear(4, 3), torch.randn(2, 4, dtype=torch.complex64)
        >>> layer(z).shape, torch.allclose(layer(2 * z), 2 * layer(z), atol=1e-6)
        (torch.Size([2, 3]), True)
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2 * out_features, 2 * in_features) / (2 * in_features) ** 0.5)
        self.weight._linear_map = "real"  # type: ignore[attr-defined]

    def matrix(self, scale: Tensor | None = None) -> Tensor:
        return self._scaled(scale)


class Affine(NamedTuple):
    """The last two arguments of :func:`torch.nn.functional.linear`."""

    matrix: Tensor
    bias: Tensor


class RealReadout(nn.Linear):
    """A real affine map of ``[Re z, Im z]``, complex ``[..., dim]`` to real ``[..., out_features]``.

    ``weight`` is ``[out, 2 dim]``, the columns of the real parts first. Its columns are brought into the order of real
    blocks, not the wave into theirs.
    """

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__(2 * dim, out_features)

    def affine(self) -> Affine:
        """The map on real blocks."""
        return Affine(self.weight.unflatten(1, (2, -1)).transpose(1, 2).flatten(1), self.bias)

    def forward(self, z: Tensor) -> Tensor:
        """``z``, complex ``[..., dim]``, to real ``[..., out_features]``."""
        return functional.linear(interleaved(z), *self.affine())


class NormWeights(NamedTuple):
    """The arguments of :func:`sem.ops.complex_rms_norm` behind the first."""

    gamma: Tensor
    eps: float


class ComplexRMSNorm(nn.Module):
    """``z * gamma / (rms + eps)`` per token, with the RMS over active entries (``|z|^2 > 1e-12``).

    Takes and returns complex64 ``[..., dim]``; ``gamma`` is real ``[dim]``.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def weights(self) -> NormWeights:
        """What the norm computes with."""
        return NormWeights(self.gamma, self.eps)

    def forward(self, z: Tensor) -> Tensor:
        """``z``, complex ``[..., dim]``, to complex64 of the same shape; in float32 whatever autocast says."""
        return complex_rms_norm(z, *self.weights())
