"""The arguments of a diffraction image, checked, as the tensors and numbers that the kernels and their twin read."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sem.ops import boundary
from sem.ops.diffraction.inputs import (
    MODES,
    SHAPES,
    Curvature,
    DetectorFrame,
    Domains,
    Number,
    Polarisation,
    Region,
    Sources,
    StructureFactors,
)

CLASSICAL_RADIUS_SQUARED = 7.94079248018965e-30
"""Square of the classical electron radius, metres^2."""
DEFAULT_FLUENCE = 1.25932015286227e29
"""Photons per square metre: its product with the squared radius is 1 to seven digits."""

_MOST_SUBPIXELS = 2**30


@dataclass(frozen=True)
class Settings:
    """What has no gradient; the fields of sem::DiffractionSettings."""

    slow_pixels: int
    fast_pixels: int
    fast_first: int
    fast_last: int
    slow_first: int
    slow_last: int
    oversample: int
    layers: int
    point_pixel: bool
    curved: bool
    polarised: bool
    shape: int
    phi_carryover: bool
    tricubic: bool
    first_h: int
    first_k: int
    first_l: int
    mode: int
    pixel_size: float
    layer_step: float
    attenuation: float
    d_min: float

    def numbers(self) -> list[float]:
        """The values in the order of the fields, as the operator takes them."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class ProblemTensors:
    """The tensors, float64 but for ``table`` (float32 or float64) and ``mask`` (bool); those of unused parts are empty
    or zero. ``incident`` holds unit vectors from the sources to the sample."""

    frame: Tensor  # [4, 3]: origin, fast, slow, normal
    close_distance: Tensor  # []
    curvature: Tensor  # [4]: distance, beam
    incident: Tensor  # [S, 3]
    wavelength: Tensor  # [S]
    weight: Tensor  # [S]
    orientation: Tensor  # [P, M, 3, 3]
    reciprocal_metric: Tensor  # [3, 3]
    cells: Tensor  # [3]
    fudge: Tensor  # []
    default_factor: Tensor  # []
    table: Tensor  # [H, K, L]
    kahn: Tensor  # []
    polarisation_axis: Tensor  # [3], unit; zero where there is no polarisation factor
    scale: Tensor  # []
    background: Tensor  # []
    mask: Tensor  # [slow, fast] or [0]

    def tensors(self) -> list[Tensor]:
        """The tensors in the order of the fields, as the operator takes them."""
        return [getattr(self, field.name) for field in fields(self)]


def resolve(
    detector: DetectorFrame,
    sources: Sources,
    domains: Domains,
    factors: StructureFactors,
    polarisation: Polarisation | None,
    region: Region | None,
    scale: Number,
    background: Number,
    d_min: float,
    mode: str,
) -> tuple[ProblemTensors, Settings]:
    """Check every argument; ``TypeError`` and ``ValueError`` name the one that does not fit."""
    for name, value, kind in (
        ("detector", detector, DetectorFrame),
        ("sources", sources, Sources),
        ("domains", domains, Domains),
        ("factors", factors, StructureFactors),
    ):
        _instance(name, value, kind)
    orientation = boundary.double("orientation", domains.orientation)
    if orientation.dim() != 4 or orientation.shape[2:] != (3, 3) or 0 in orientation.shape[:2]:
        raise ValueError(f"orientation: expected shape [P, M, 3, 3] with P, M >= 1, got {list(orientation.shape)}")
    like = orientation
    slow, fast = _shape(detector.shape)
    oversample = boundary.count("oversample", detector.oversample, least=1)
    if oversample**2 * slow * fast >= _MOST_SUBPIXELS * 64:
        raise ValueError(f"oversample: expected fewer subpixels in all, got {oversample}^2 on {slow} x {fast} pixels")
    frame = torch.stack(
        [boundary.double(name, getattr(detector, name), (3,), like) for name in ("origin", "fast", "slow", "normal")]
    )
    direction = boundary.double("direction", sources.direction, like=like)
    if direction.dim() != 2 or direction.shape[1] != 3 or direction.shape[0] == 0:
        raise ValueError(f"direction: expected shape [S, 3] with S >= 1, got {list(direction.shape)}")
    count = direction.shape[0]
    wavelength = boundary.double("wavelength", sources.wavelength, (count,), like)
    weight = (
        like.new_ones(count) if sources.weight is None else boundary.double("weight", sources.weight, (count,), like)
    )
    shape = boundary.choice("shape", domains.shape, SHAPES)
    table, first_index = _table(factors, like)
    kahn, axis = _polarisation(polarisation, like)
    roi, mask = _region(region, slow, fast, like)
    problem = ProblemTensors(
        frame=frame,
        close_distance=boundary.double("close_distance", detector.close_distance, (), like),
        curvature=_curvature(detector.curvature, like),
        incident=-direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True),
        wavelength=wavelength,
        weight=weight,
        orientation=orientation,
        reciprocal_metric=_metric(domains, orientation),
        cells=boundary.double("cells", domains.cells, (3,), like),
        fudge=boundary.double("fudge", domains.fudge, (), like),
        default_factor=boundary.double("default", factors.default, (), like),
        table=table,
        kahn=kahn,
        polarisation_axis=axis,
        scale=boundary.double("scale", scale, (), like),
        background=boundary.double("background", background, (), like),
        mask=mask,
    )
    settings = Settings(
        slow_pixels=slow,
        fast_pixels=fast,
        fast_first=roi[0],
        fast_last=roi[1],
        slow_first=roi[2],
        slow_last=roi[3],
        oversample=oversample,
        layers=boundary.count("layers", detector.layers, least=1),
        point_pixel=bool(detector.point_pixel),
        curved=detector.curvature is not None,
        polarised=polarisation is not None,
        shape=SHAPES.index(shape),
        phi_carryover=bool(domains.phi_carryover) and orientation.shape[0] > 1,
        tricubic=bool(factors.tricubic) and table.numel() > 0,
        first_h=first_index[0],
        first_k=first_index[1],
        first_l=first_index[2],
        mode=MODES.index(boundary.choice("mode", mode, MODES)),
        pixel_size=boundary.positive("pixel_size", detector.pixel_size),
        layer_step=boundary.nonnegative("layer_step", detector.layer_step),
        attenuation=boundary.nonnegative("attenuation", detector.attenuation),
        d_min=boundary.nonnegative("d_min", d_min),
    )
    return problem, settings


def _instance(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a sem.ops.{kind.__name__}, got {type(value).__name__}")


def _shape(shape: object) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list, torch.Size)) or len(shape) != 2:
        raise ValueError(f"shape: expected (slow pixels, fast pixels), got {shape!r}")
    slow, fast = (boundary.count("shape", pixels) for pixels in shape)
    return slow, fast


def _metric(domains: Domains, orientation: Tensor) -> Tensor:
    if domains.reciprocal_metric is not None:
        return boundary.double("reciprocal_metric", domains.reciprocal_metric, (3, 3), orientation)
    if domains.shape not in ("gauss", "tophat"):
        return orientation.new_zeros(3, 3)
    cell = orientation[0, 0]
    try:
        return torch.linalg.inv(cell @ cell.T).mT.contiguous()  # symmetric, and column by column in memory
    except torch.linalg.LinAlgError:
        message = "orientation: expected cells whose three vectors span the space, the first one's do not"
        raise ValueError(message) from None


def _curvature(curvature: Curvature | None, like: Tensor) -> Tensor:
    if curvature is None:
        return like.new_zeros(4)
    _instance("curvature", curvature, Curvature)
    distance = boundary.double("curvature.distance", curvature.distance, (), like)
    return torch.cat([distance.reshape(1), boundary.double("curvature.beam", curvature.beam, (3,), like)])


def _table(factors: StructureFactors, like: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    first = tuple(factors.first_index)
    if len(first) != 3 or not all(isinstance(index, int) and abs(index) < 2**20 for index in first):
        raise ValueError(f"first_index: expected three ints (h, k, l) below 2^20 in size, got {factors.first_index!r}")
    if factors.table is None:
        return like.new_zeros(0, 0, 0, dtype=torch.float32), first
    table = factors.table
    table = boundary.dense("table", table)
    if table.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"table: expected a float32 or float64 tensor, got {table.dtype}")
    if table.dim() != 3 or table.numel() == 0 or table.numel() >= 2**31:
        raise ValueError(f"table: expected shape [H, K, L] with 1 to 2^31 entries, got {list(table.shape)}")
    boundary.same_device("table", table, like)
    return table.resolve_neg().contiguous(), first


def _polarisation(polarisation: Polarisation | None, like: Tensor) -> tuple[Tensor, Tensor]:
    if polarisation is None:
        return like.new_zeros(()), like.new_zeros(3)
    _instance("polarisation", polarisation, Polarisation)
    axis = boundary.double("polarisation.axis", polarisation.axis, (3,), like)
    length = torch.linalg.vector_norm(axis.unsqueeze(0), dim=1)  # not a 0-d one: torch.vmap over an empty batch fails
    return boundary.double("kahn", polarisation.kahn, (), like), axis / length


def _region(region: Region | None, slow: int, fast: int, like: Tensor) -> tuple[tuple[int, int, int, int], Tensor]:
    whole = (0, fast - 1, 0, slow - 1)
    none = torch.empty(0, dtype=torch.bool, device=like.device)
    if region is None:
        return whole, none
    _instance("region", region, Region)
    roi = whole
    if region.roi is not None and len(region.roi) == 4:
        first, last, slow_first, slow_last = (boundary.count("roi", edge) for edge in region.roi)
        roi = (first, last, slow_first, slow_last)
    if region.roi is not None and (roi is whole or not (roi[0] <= roi[1] < fast and roi[2] <= roi[3] < slow)):
        raise ValueError(
            f"roi: expected (fast first, fast last, slow first, slow last), inclusive and inside {slow} slow x "
            f"{fast} fast pixels, got {tuple(region.roi)}"
        )
    if region.mask is None:
        return roi, none
    mask = region.mask
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask: expected a bool tensor, got {getattr(mask, 'dtype', type(mask).__name__)}")
    if tuple(mask.shape) != (slow, fast):
        raise ValueError(f"mask: expected shape {[slow, fast]} as the detector, got {list(mask.shape)}")
    boundary.same_device("mask", mask, like)
    return roi, mask.contiguous()


def check_values(problem: ProblemTensors) -> None:
    """Refuse numbers that make an image meaningless. Reads the tensors, so it is called where that costs nothing: by
    the CPU operator, inside every transformation."""
    for name, field, wanted, good in (
        ("wavelength", "wavelength", "values > 0 (metres)", problem.wavelength > 0),
        ("close_distance", "close_distance", "a number > 0 (metres)", problem.close_distance > 0),
        ("cells", "cells", "values > 0", problem.cells > 0),
        ("fudge", "fudge", "a number >= 0", problem.fudge >= 0),
        ("direction", "incident", "vectors that are not zero", problem.incident.isfinite()),
        ("polarisation.axis", "polarisation_axis", "a vector that is not zero", problem.polarisation_axis.isfinite()),
    ):
        if not bool(good.all()):
            raise ValueError(f"{name}: expected {wanted}, got {getattr(problem, field).detach().tolist()}")
