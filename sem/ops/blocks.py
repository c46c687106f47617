"""Complex vectors as real ones: the layout that waves have everywhere.

A complex vector ``[..., D]`` has the layout of complex64; *interleaved*, as real numbers ``[..., 2 D]`` (re, im, re, im
and so on), it is the same memory, and real matrix products take it as it lies. (*Real blocks* are ``[..., D, 2]``.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def interleaved(z: Tensor) -> Tensor:
    """Complex ``[..., D]`` as real ``[..., 2 D]``; the same memory where ``z`` is contiguous."""
    return torch.view_as_real(z.resolve_conj()).flatten(-2)


def complex_of(blocks: Tensor) -> Tensor:
    """Interleaved ``[..., 2 D]`` as complex ``[..., D]``, the same memory."""
    return torch.view_as_complex(blocks.unflatten(-1, (-1, 2)))


def pair_sum(blocks: Tensor) -> Tensor:
    """Sums of neighbours, ``[..., 2 D]`` to ``[..., D]``: ``|z|^2`` from squares, ``Re(conj(y) z)`` from products."""
    first, second = blocks.unflatten(-1, (-1, 2)).unbind(-1)
    return first + second


def intensity(z: Tensor) -> Tensor:
    """``|z|^2`` of complex64 ``z``, float32."""
    return pair_sum(interleaved(z).square())


def real_matrix(weight: Tensor) -> Tensor:
    """The real matrix ``[..., 2 out, 2 in]`` on blocks of the complex one given as ``weight [..., out, in, 2]``."""
    # not lazily: inside an operator that a compiled graph calls, torch ignores the conjugate bit
    conjugate = torch.view_as_complex(weight).conj_physical()
    rows = torch.stack([conjugate, 1j * conjugate], -2)  # as many pairs: (R, -J) gives the real part, (J, R) the other
    return torch.view_as_real(rows).flatten(-2).flatten(-3, -2)
