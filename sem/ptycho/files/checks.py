"""Geometry, positions and waves of a file as a scan has them; what cannot be meant gets a sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem.ptycho.files.contents import Geometry

AXES = tuple("".join(signs) for a in ("yx", "xy") for signs in itertools.product(("+", "-"), a[0], ("+", "-"), a[1]))
"""Ways to lay the axes of a file's positions along the rows and columns of its patterns."""

# What instruments have, widely; a number outside was written in another unit.
PHOTON_ENERGIES = (1e-3, 150.0)  # keV
WAVELENGTHS = (1e-3, 2e4)  # Angstrom
DISTANCES = (1e-3, 100.0)  # m
DETECTOR_PIXELS = (1e-7, 5e-3)  # m
LARGEST_OBJECT = 100_000  # pixels


def within(path: Path, name: str, value: float | None, bounds: tuple[float, float], unit: str) -> float:
    """``value`` where it is a number in ``bounds``; the sentence that says otherwise names ``unit``."""
    if value is None:
        raise ValueError(f"{path}: expected {name} in {unit}, found none")
    if not bounds[0] <= value <= bounds[1]:  # NaN is outside, too
        low, high = bounds
        raise ValueError(f"{path}: {name}: expected {low:g} to {high:g} {unit}, got {value:.6g}; is the unit right?")
    return value


def checked_geometry(path: Path, wavelength: float, distance: float, detector_pixel: float, side: int) -> Geometry:
    """The geometry of these numbers where each may be meant in its unit."""
    within(path, "wavelength", wavelength, WAVELENGTHS, "Angstrom")
    within(path, "distance", distance, DISTANCES, "m")
    within(path, "detector pixel", detector_pixel, DETECTOR_PIXELS, "m")
    geometry = Geometry(wavelength, distance, detector_pixel, side)
    if geometry.object_pixel < geometry.wavelength * 1e-10 / 2:
        aperture = f"{geometry.side} pixels of {geometry.detector_pixel:g} m at {geometry.distance:g} m"
        raise ValueError(
            f"{path}: expected pixels of the object of half a wavelength or more, got {geometry.object_pixel:.3g} m "
            f"from {aperture}; are the units of distance and pixel right?"
        )
    return geometry


def square_pixel(path: Path, names: str, row: float | None, column: float | None) -> float:
    """The side of a detector's pixel from its two sides."""
    if row is None or column is None:
        raise ValueError(f"{path}: expected {names} in m, found {'none' if row is column else 'one of them'}")
    if abs(row - column) > 1e-6 * abs(row):
        raise ValueError(f"{path}: {names}: expected square pixels, got {row:g} m by {column:g} m")
    return row


def laid_along(positions: Any, axes: str) -> list[Any]:
    """Rows and columns of ``positions [J, 2]`` (y, x), an array or a tensor, whose axes lie as ``axes`` says."""
    return [(-1 if part[0] == "-" else 1) * positions[:, "yx".index(part[1])] for part in (axes[:2], axes[2:])]


def placed(path: Path, name: str, pixels: np.ndarray, side: int, margin: int, axes: str) -> Tensor:
    """Positions of a scan, float32 ``[J, 2]``, whose smallest row and column are ``margin``.

    Args:
        pixels: ``[J, 2]`` (y, x) in pixels of the object, from anywhere.
        axes: one of :data:`AXES`.

    Raises:
        ValueError: they are not finite, all at one place, or nowhere near each other.
    """
    if axes not in AXES:
        raise ValueError(f"axes: expected one of {', '.join(AXES)}, got {axes!r}")
    if margin < 0:
        raise ValueError(f"margin: expected a number >= 0, got {margin}")
    finite = np.isfinite(pixels).all(1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(f"{path}: {name}: expected finite positions, got {len(bad)} that are not, first {bad[0]}")
    laid = np.stack(laid_along(pixels, axes), 1)
    laid -= laid.min(0)
    extent = float(laid.max())
    if extent > LARGEST_OBJECT:
        got = f"a scan {extent:.3g} pixels of the object wide"
        raise ValueError(f"{path}: {name}: expected at most {LARGEST_OBJECT}, got {got}; is the unit right?")
    if len(laid) > 1 and extent < 0.5:
        got = f"all within {extent:.3g} pixels of the object"
        raise ValueError(f"{path}: {name}: expected a scan of different positions, got {got}; is the unit right?")
    nearest = _nearest(laid)
    if nearest >= side:
        got = f"{nearest:.4g} pixels of the object to the nearest one in the median, and patches of {side}"
        raise ValueError(f"{path}: {name}: expected patches that overlap, got {got}; is the unit right?")
    return torch.from_numpy((laid + margin).astype(np.float32))


def _nearest(positions: np.ndarray) -> float:
    """How far, along rows or columns, the next position is: the median over at most 256 of them; 0 for one position."""
    if len(positions) < 2:
        return 0.0
    some = np.linspace(0, len(positions) - 1, min(len(positions), 256)).astype(int)
    return float(np.median([np.delete(np.abs(positions - positions[i]).max(1), i).min() for i in some]))


def probe_of(path: Path, name: str, values: np.ndarray, side: int) -> Tensor:
    """A probe ``[N, N]`` or ``[M, N, N]`` of a file as complex64 ``[M, N, N]``."""
    if (
        values.ndim not in (2, 3)
        or values.shape[-2:] != (side, side)
        or values.dtype.kind not in "fc"
        or not values.size
    ):
        expected = f"complex [{side}, {side}] or [M, {side}, {side}]"
        raise ValueError(f"{path}: {name}: expected {expected}, got {values.dtype} {list(values.shape)}")
    return _complex(path, name, values.reshape(-1, side, side))


def object_of(path: Path, name: str, values: np.ndarray) -> Tensor:
    """An object ``[H, W]`` of a file as complex64."""
    if values.ndim != 2 or values.dtype.kind not in "fc" or not values.size:
        raise ValueError(f"{path}: {name}: expected complex [H, W], got {values.dtype} {list(values.shape)}")
    return _complex(path, name, values)


def _complex(path: Path, name: str, values: np.ndarray) -> Tensor:
    numbers = values.astype(np.complex64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{path}: {name}: expected finite numbers that float32 holds")
    return torch.from_numpy(numbers)
