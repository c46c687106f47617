"""Rotations of vectors, right-handed, differentiable in the vectors, the axis and the angle."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """``vectors`` ``[..., 3]`` divided by their lengths."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


def about_axis(vectors: Tensor, axis: Tensor, angle: Tensor) -> Tensor:
    """Rodrigues' rotation of ``vectors`` ``[..., 3]`` about unit vectors ``axis`` by ``angle`` in radians.

    ``axis`` ``[..., 3]`` and ``angle`` ``[...]`` broadcast with the vectors.

    Example:
        >>> x, z = torch.eye(3, dtype=torch.float64)[[0, 2]]
        >>> about_axis(x, z, torch.tensor(torch.pi / 2, dtype=torch.float64)).round(decimals=9).tolist()
        [0.0, 1.0, 0.0]
    """
    vectors, axis = torch.broadcast_tensors(vectors, axis)
    cosine, sine = torch.cos(angle).unsqueeze(-1), torch.sin(angle).unsqueeze(-1)
    along = (vectors * axis).sum(dim=-1, keepdim=True)
    return vectors * cosine + torch.linalg.cross(axis, vectors) * sine + axis * along * (1 - cosine)


def about_xyz(vectors: Tensor, angles: Tensor) -> Tensor:
    """``vectors`` ``[..., 3]`` turned about x, then y, then z by the three ``angles`` in radians."""
    generators = _GENERATORS.to(vectors)
    # Rodrigues about all three axes at once: 1 + sin K + (1 - cos) K^2
    x, y, z = torch.eye(3).to(vectors) + (
        torch.sin(angles)[:, None, None] * generators
        + (1 - torch.cos(angles))[:, None, None] * (generators @ generators)
    )
    return vectors @ (z @ y @ x).mT


_GENERATORS = torch.linalg.cross(torch.eye(3)[:, None, :], torch.eye(3)[None, :, :]).mT
"""K with ``K v = axis x v`` for x, y and z, ``[3, 3, 3]``."""
