"""Rotations of vectors, right-handed, differentiable in the vectors, the axis and the angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """``vectors`` ``[..., 3]`` divided by their lengths."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


def about_axis(vectors: Tensor, axis: Tensor, angle: Tensor) -> Tensor:
    """Rodrigues' formula: ``vectors`` ``[..., 3]`` turned about unit vectors ``axis`` by ``angle`` in radians.

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


def by_vector(vectors: Tensor, turn: Tensor) -> Tensor:
    """``vectors`` ``[..., 3]`` rotated about ``turn`` ``[..., 3]`` by its length in radians.

    Smooth where that is 0 too, as :func:`about_axis` with a unit vector and a length is not.

    Example:
        >>> x, z = torch.eye(3, dtype=torch.float64)[[0, 2]]
        >>> by_vector(x, z * torch.pi / 2).round(decimals=9).tolist(), by_vector(x, 0 * z).tolist()
        ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])
    """
    vectors, turn = torch.broadcast_tensors(vectors, turn)
    square = turn.square().sum(dim=-1, keepdim=True)
    small = square < 1e-6
    safe = torch.where(small, 1.0, square)
    sine = torch.where(small, 1 - square / 6 + square.square() / 120, torch.sin(safe.sqrt()) / safe.sqrt())
    cosine = torch.where(small, 0.5 - square / 24 + square.square() / 720, (1 - torch.cos(safe.sqrt())) / safe)
    across = torch.linalg.cross(turn, vectors)
    return vectors + sine * across + cosine * torch.linalg.cross(turn, across)


def about_xyz(vectors: Tensor, angles: Tensor) -> Tensor:
    """``vectors`` ``[..., 3]`` turned about x, then y, then z by the three ``angles`` in radians."""
    generators = _GENERATORS.to(vectors)
    # Rodrigues about all three axes at once: 1 + sin K + (1 - cos) K^2
    x, y, z = torch.eye(3).to(vectors) + (
        torch.sin(angles)[:, None, None] * generators
        + (1 - torch.cos(angles))[:, None, None] * (generators @ generators)
    )
    return vectors @ (z @ y @ x).mT


def misset2umat(misset: Tensor) -> Tensor:
    """The rotation ``[3, 3]`` that turns about x, then y, then z by ``misset`` ``[3]`` in degrees: vectors as columns.

    Example:
        >>> misset2umat(torch.tensor([0.0, 0.0, 90.0], dtype=torch.float64)).round(decimals=9).tolist()
        [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    angles = torch.as_tensor(misset, dtype=torch.float64) * (math.pi / 180)
    return about_xyz(torch.eye(3, dtype=torch.float64), angles).mT


def umat2misset(umat: Tensor) -> Tensor:
    """The turns ``[3]`` about x, y and z in degrees that :func:`misset2umat` makes ``umat`` ``[3, 3]`` of.

    That about y lies in -90 to 90; the others in -180 to 180. Where y is at an end, x and z turn about one axis, and
    there are many of them.

    Raises:
        ValueError: no rotation, to 1e-6.
    """
    matrix = torch.as_tensor(umat, dtype=torch.float64)
    if matrix.shape != (3, 3) or not float((matrix @ matrix.mT - torch.eye(3)).abs().max()) < 1e-6:
        raise ValueError(f"umat: expected a rotation, got {matrix.tolist()}")
    if float(torch.linalg.det(matrix)) < 0:
        raise ValueError(f"umat: expected a rotation, got one with a mirror: {matrix.tolist()}")
    rows = matrix.tolist()
    turn_x = math.atan2(rows[2][1], rows[2][2])
    turn_y = math.atan2(-rows[2][0], math.hypot(rows[2][1], rows[2][2]))
    # z from what is left when x is undone, so that an error of x, large where y is near an end, is made up for
    sine, cosine = math.sin(turn_x), math.cos(turn_x)
    turn_z = math.atan2(sine * rows[0][2] - cosine * rows[0][1], cosine * rows[1][1] - sine * rows[1][2])
    return torch.tensor([turn_x, turn_y, turn_z], dtype=torch.float64) * (180 / math.pi)


_GENERATORS = torch.linalg.cross(torch.eye(3)[:, None, :], torch.eye(3)[None, :, :]).mT
"""K with ``K v = axis x v`` for x, y and z, ``[3, 3, 3]``."""
