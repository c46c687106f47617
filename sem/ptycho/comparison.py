"""Results beside the object they are of, and as they are shown."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sem.ptycho.alignment import aligned
from sem.ptycho.files import ResultFile
from sem.ptycho.frc import RingCorrelation, ring_correlation
from sem.ptycho.inspection import lit_box
from sem.ptycho.metrics import Scores, floors, scores

TABLE = ("amp_ssim", "amp_mae", "phase_ssim", "phase_mae", "complex_error")
"""Scores that tables show; files have all."""
LEAST = 7
"""Pixels along a side that scores need."""


def beside(result: ResultFile, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The object found and the true one where both are, between the outermost middles of the probe; complex ``[h, w]``.

    Args:
        truth: complex ``[H, W]``, the scan's own object, of which pixel ``[0, 0]`` is the positions' ``[0, 0]``.

    Raises:
        ValueError: too few pixels are left to be compared.
    """
    half = result.side // 2
    box = []
    for axis in (0, 1):
        first, last = (int((bound + 0.5).floor()) + half for bound in result.start[:, axis].aminmax())
        origin = result.origin[axis]
        first = max(first, 0, origin)
        last = min(last, result.object.shape[axis], truth.shape[axis] + origin)
        if last - first < LEAST:
            raise ValueError(
                f"truth: expected {LEAST} pixels or more along each side between the outermost middles of the probe, "
                f"got {max(last - first, 0)}"
            )
        box.append((first, last, origin))
    (top, bottom, y), (left, right, x) = box
    return result.object[top:bottom, left:right], truth[top - y : bottom - y, left - x : right - x]


def scores_beside(result: ResultFile, truth: Tensor) -> tuple[Scores, Scores]:
    """Scores of a result, and those of a constant image: its floors. An engine's object is registered before, since a
    probe that is free may have moved it; a network's is in its probe's frame."""
    found, wanted = beside(result, truth)
    return scores(found, wanted, register=not result.settings.get("network", False)), floors(wanted)


def rings_beside(result: ResultFile, truth: Tensor) -> RingCorrelation:
    """The ring correlation of a result, aligned, with the true object."""
    found, wanted = beside(result, truth)
    return ring_correlation(aligned(found, wanted), wanted)


def ring_figures(result: ResultFile, truth: Tensor) -> dict[str, float]:
    """Resolutions in pixels of the object, by the crossings of :func:`rings_beside`."""
    rings = rings_beside(result, truth)
    crossings = {"half_px": rings.half, "seventh_px": rings.seventh, "half_bit_px": rings.half_bit}
    return {name: rings.resolution(1.0, ring) for name, ring in crossings.items()}


def plain(found: Scores) -> dict[str, float | None]:
    """By name, for JSON, which knows no infinity."""
    return {name: value if value is None or math.isfinite(value) else None for name, value in found._asdict().items()}


def figure(score: float | None) -> str:
    """A score as a table has it; a score that there is none of is a dash."""
    return "-" if score is None else f"{score:.4f}"


def without_ramp(object: Tensor) -> Tensor:
    """The same without the phase ramp and the phase that it has in the mean: complex ``[H, W]``.

    The ramp's slopes are the phases of ``sum conj(O[y, x]) O[y + 1, x]`` and alike along ``x``, which no wrapped phase
    misleads.

    Example:
        >>> y, x = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
        >>> flat = without_ramp(torch.polar(torch.ones(8, 9), 1 + 0.5 * y - 2 * x))
        >>> bool(flat.angle().abs().max() < 1e-5)
        True
    """
    wave = object.to(torch.complex128)
    for axis in (0, 1):
        size = wave.shape[axis]
        behind, ahead = wave.narrow(axis, 0, size - 1), wave.narrow(axis, 1, size - 1)
        slope = (behind.conj() * ahead).sum().angle()
        along = torch.arange(size, dtype=torch.float64).view((-1, 1) if axis == 0 else (1, -1))
        wave = wave * torch.polar(torch.ones_like(along), -slope * along)
    return (wave * torch.polar(torch.ones(()).double(), -wave.sum().angle())).to(object.dtype)


def shown(result: ResultFile) -> Tensor:
    """The object as pictures show it: where it is lit, without the ramp that no pattern can tell."""
    height, width = result.object.shape
    rows, columns = lit_box(result.start, result.probe, (height, width))
    return without_ramp(result.object[rows, columns])
