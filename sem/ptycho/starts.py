"""A result as the beginning of another reconstruction: its object and positions on the grid of an engine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sem.extras import how_to_install
from sem.ops import Patches
from sem.ptycho.files import Geometry, ResultFile
from sem.ptycho.inspection import illumination
from sem.ptycho.scan import Scan

OFF = 0.1
"""Pixels by which a position of the result may be off the scan's."""
WHOLE = 1e-3
"""Pixels by which a shift may be off whole ones and count as such: positions are of float32."""


class Start(NamedTuple):
    """Where a reconstruction begins.

    Attributes:
        object: complex64 ``[H, W]`` on the engine's grid. Where no patch of the result lies it is even, as bright as
            the rest and of the phase of its mean, which is 0.
        probe: complex64 ``[M, N, N]``; None where its pixels are not the scan's.
        scan: the patterns, at the result's positions.
        note: what was done, in a sentence.
    """

    object: Tensor
    probe: Tensor | None
    scan: Scan
    note: str


def begin_from(result: ResultFile, scan: Scan, geometry: Geometry | None = None) -> Start:
    """The object of a result of a scan, moved onto the pixels of an engine's, by what both say of the positions.

    Where that is a shift by whole pixels, as it is between results of one file, no number changes but for one phase of
    all; else the object is interpolated by splines of degree 3, pixels of another size included. Positions that the
    result has refined are taken over.

    Args:
        result: an engine's or a network's.
        scan: as the engine has it, with the margin of its object.
        geometry: of the scan; pixels are compared where the result has one, too.

    Raises:
        ValueError: the result is of other positions, its pixels cannot be compared, its object does not hold its
            patches, or is dark.
        ImportError: the object has to be interpolated and scipy is not installed.

    Example:
        >>> from sem.ptycho import PIE, disk_probe, lines_object, raster_scan, simulate
        >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 6))
        >>> found = PIE(scan, probe).run(3)
        >>> result = ResultFile("epie", found.object, found.probe, scan.positions, scan.positions)
        >>> begin_from(result, scan.with_margin()).note
        'object: of epie, moved by (8, 8) pixels'
    """
    scale = _pixels(result, scan, geometry)
    if len(result.start) != len(scan):
        raise ValueError(f"positions: expected {len(scan)}, as the scan has, got {len(result.start)}")
    # the middle of the probe is the one point of a pattern that pixels of all sizes share
    here = scan.positions.double() + scan.side // 2
    there = (result.start.double() + result.side // 2) * scale
    shift = (here - there).mean(0)
    off = (here - there - shift).norm(dim=1)
    if float(off.max()) > OFF:
        j = int(off.argmax())
        raise ValueError(f"positions: expected those of the scan, got pattern {j} {float(off[j]):.3g} pixels elsewhere")
    light = _light(result)
    object, known = _even_phase(result.object, light), light > 0
    height, width = scan.object_shape()
    whole = shift.round()
    if scale == 1 and float((shift - whole).abs().max()) < WHOLE:
        y, x = (int(part) for part in whole.tolist())
        found, seen = _placed(object, y, x, (height, width)), _placed(known, y, x, (height, width))
        how = f"moved by ({y}, {x}) pixels"
    else:
        found, seen = _interpolated(object, known, scale, shift, (height, width))
        how = f"interpolated, moved by ({shift[0]:.2f}, {shift[1]:.2f}) pixels"
        how += "" if scale == 1 else f", whose pixels are {scale:.4g} times as large"
    moves = (result.positions.double() - result.start.double()) * scale
    at = scan.at((scan.positions.double() + moves).to(scan.positions.dtype)) if bool(moves.any()) else scan
    level = (light * object.abs().double().square()).sum() / light.sum()
    found = torch.where(seen, found, level.sqrt().to(found.dtype))
    usable = scale == 1 and result.side == scan.side
    return Start(found, result.probe if usable else None, at, f"object: of {result.name}, {how}")


def _pixels(result: ResultFile, scan: Scan, geometry: Geometry | None) -> float:
    """How many of the scan's pixels one of the result's is long."""
    if result.geometry is not None and geometry is not None:
        ratio = result.geometry.object_pixel / geometry.object_pixel
        return 1.0 if abs(ratio - 1) < 1e-6 else ratio
    if result.side != scan.side:
        raise ValueError(
            f"probe: expected [M, {scan.side}, {scan.side}], as the patterns are, got side {result.side}, and no "
            "geometry in both files that says how long their pixels are"
        )
    return 1.0


def _light(result: ResultFile) -> Tensor:
    """Where it is lit, float64 ``[H, W]``."""
    height, width = result.object.shape
    Patches((result.positions + 0.5).floor().long(), result.side, (height, width))  # says which patch leaves it
    light = illumination(result.positions, result.probe, (height, width)).double()
    if not float((light * result.object.abs()).max()) > 0:
        raise ValueError("object: expected some light behind it, got none")
    return light


def _even_phase(object: Tensor, light: Tensor) -> Tensor:
    """The same, turned so that its mean, weighted by ``light``, has the phase 0, which is free."""
    mean = (object.to(torch.complex128) * light).sum()
    turn = torch.polar(torch.ones((), dtype=torch.float64), -mean.angle())
    return (object * turn).to(object.dtype)


def _placed(image: Tensor, y: int, x: int, shape: tuple[int, int]) -> Tensor:
    """``image`` with its pixel ``[0, 0]`` at ``[y, x]`` of one of ``shape``, which is 0 elsewhere."""
    placed = image.new_zeros(shape)
    rows, columns = (
        (max(first, 0), min(first + size, most)) for first, size, most in zip((y, x), image.shape, shape, strict=True)
    )
    inside = image[rows[0] - y : rows[1] - y, columns[0] - x : columns[1] - x]
    placed[rows[0] : rows[1], columns[0] : columns[1]] = inside
    return placed


def _interpolated(
    image: Tensor, known: Tensor, scale: float, shift: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """``image`` where its pixel ``u`` comes to ``scale u + shift``, and where all that it is made of is ``known``."""
    try:
        from scipy.ndimage import affine_transform, binary_erosion
    except ImportError:
        raise ImportError(f"moving an object between pixels needs scikit-image: {how_to_install('ptycho')}") from None
    matrix, offset = [1 / scale, 1 / scale], (-shift / scale).tolist()
    options = {"matrix": matrix, "offset": offset, "output_shape": shape}
    filled = torch.where(known, image, image[known].mean()).to(torch.complex128)
    parts = [torch.from_numpy(affine_transform(part.numpy(), order=3, mode="nearest", **options))
             for part in (filled.real, filled.imag)]  # fmt: skip
    inner = binary_erosion(known.numpy(), iterations=1).astype("float64")
    seen = torch.from_numpy(affine_transform(inner, order=1, mode="constant", **options)) > 0.999
    return torch.complex(*parts).to(image.dtype), seen
