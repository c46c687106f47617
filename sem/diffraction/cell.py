"""The unit cell: lengths and angles to reciprocal and real-space vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def require_cell(cell: tuple[float, ...]) -> None:
    """Raise for six numbers (Å, degrees) that are no unit cell.

    Raises:
        ValueError: naming the number, or the condition that the three angles break.
    """
    if len(cell) != 6:
        raise ValueError(f"cell: expected six numbers a b c alpha beta gamma, got {len(cell)}")
    for name, length in zip("abc", cell, strict=False):
        if not (math.isfinite(length) and length > 0):
            raise ValueError(f"cell {name}: expected a length > 0 in Å, got {length:g}")
    angles = cell[3:]
    for name, angle in zip(("alpha", "beta", "gamma"), angles, strict=True):
        if not 0 < angle < 180:
            raise ValueError(f"cell {name}: expected an angle between 0 and 180 degrees, got {angle:g}")
    total, largest = sum(angles), max(angles)
    if total >= 360 or 2 * largest >= total:
        shown = ", ".join(f"{angle:g}" for angle in angles)
        wanted = "a sum below 360 degrees and no angle as large as the other two together"
        raise ValueError(f"cell angles: expected {wanted}, got {shown}")


def volume(lengths: Tensor, angles: Tensor) -> Tensor:
    """Volume of the cell of ``lengths`` ``[3]`` and ``angles`` ``[3]`` in radians, in the cube of the length's unit."""
    half = angles.sum() / 2
    skew = torch.sin(half) * torch.sin(half - angles).prod()
    return 2 * lengths.prod() * skew.abs().sqrt()


def reciprocal_vectors(lengths: Tensor, angles: Tensor, *, exact: bool) -> Tensor:
    """a*, b*, c* as rows ``[3, 3]``: a* along x, b* in the plane of x and y.

    The z component of c* is ``V* / (a* b* sin gamma*)``. With ``exact=False`` it is ``c* V / (a b c sin gamma*)``, as
    nanoBragg has it, which is the same only where two of the cell's angles are right.
    """
    content = volume(lengths, angles)
    cosine, sine = torch.cos(angles), torch.sin(angles)
    star_length = lengths.prod() / lengths * sine / content
    # the sine of a reciprocal angle is V / (a b c) over the sines of the two other angles, its cosine follows likewise
    other_cosines, other_sines = (value.roll(1) * value.roll(2) for value in (cosine, sine))
    star_cosine = (other_cosines - cosine) / other_sines
    star_sine = content / (lengths.prod() * other_sines)
    a_star, b_star, c_star = star_length
    zero = torch.zeros_like(a_star)
    if exact:
        height = 1 / (content * a_star * b_star * star_sine[2])
    else:
        height = c_star * content / (lengths.prod() * star_sine[2])
    return torch.stack(
        [
            torch.stack([a_star, zero, zero]),
            torch.stack([b_star * star_cosine[2], b_star * star_sine[2], zero]),
            torch.stack(
                [
                    c_star * star_cosine[1],
                    c_star * (star_cosine[0] - star_cosine[1] * star_cosine[2]) / star_sine[2],
                    height,
                ]
            ),
        ]
    )


def cell_of(real: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths ``[3]`` and angles ``[3]`` in radians of the cell whose a, b, c are the rows of ``real`` ``[3, 3]``."""
    lengths = real.norm(dim=-1)
    a, b, c = real / lengths[:, None]
    return lengths, torch.stack([b @ c, c @ a, a @ b]).arccos()


def dual(vectors: Tensor) -> Tensor:
    """The cross products ``v2 x v3``, ``v3 x v1``, ``v1 x v2`` of the rows of ``vectors`` ``[..., 3, 3]``."""
    return torch.linalg.cross(vectors.roll(-1, dims=-2), vectors.roll(-2, dims=-2))


def real_vectors(stars: Tensor) -> Tensor:
    """a, b, c as rows ``[3, 3]`` of reciprocal vectors ``stars`` ``[3, 3]``: the cross products over their volume."""
    crossed = dual(stars)
    return crossed / (stars[0] * crossed[0]).sum()
