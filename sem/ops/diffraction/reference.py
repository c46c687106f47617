"""The plain-torch twin of :func:`sem.ops.diffraction`: for reading first and checking second.

Every pixel at once, one step (layer, subpixel, source, spindle position, mosaic domain) after the other in the C
program's order. Pixel coordinates are built in float64 whatever the precision asked for. Differentiable to any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sem.ops.diffraction.inputs import (
    MODES,
    SHAPES,
    DetectorFrame,
    Domains,
    Number,
    Polarisation,
    Region,
    Sources,
    StructureFactors,
)
from sem.ops.diffraction.problem import CLASSICAL_RADIUS_SQUARED, DEFAULT_FLUENCE, ProblemTensors, Settings, resolve

ROUND_HEIGHT = 0.723601254558268
"""Amplitude of a sphere's interference function over that of a cuboid's with as many cells."""
GAUSS_WIDTH = 0.63
TOPHAT_EDGE = 0.3969


def diffraction(
    detector: DetectorFrame,
    sources: Sources,
    domains: Domains,
    factors: StructureFactors,
    polarisation: Polarisation | None = None,
    region: Region | None = None,
    *,
    scale: Number = CLASSICAL_RADIUS_SQUARED * DEFAULT_FLUENCE,
    background: Number = 0.0,
    d_min: float = 0.0,
    mode: str = "nanobragg",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Twin of :func:`sem.ops.diffraction`: the image in ``dtype``, ``[slow, fast]``."""
    problem, settings = resolve(
        detector, sources, domains, factors, polarisation, region, scale, background, d_min, mode
    )
    return image(problem, settings, dtype)


def image(problem: ProblemTensors, settings: Settings, dtype: torch.dtype) -> Tensor:
    """What the kernels compute from the resolved arguments."""
    p = ProblemTensors(*(t if t.dtype == torch.bool else t.to(dtype) for t in problem.tensors()))
    chosen = _chosen_pixels(p.mask, settings)
    first_outside = _first_outside(p, problem, settings, chosen, dtype) if settings.tricubic else None
    total = torch.zeros(settings.slow_pixels, settings.fast_pixels, dtype=dtype, device=p.frame.device)
    steps = len(p.incident) * p.orientation.shape[0] * p.orientation.shape[1] * settings.oversample**2
    number, factor, capture = 0, None, torch.ones_like(total)
    for position in _positions(problem, settings, dtype):
        if MODES[settings.mode] == "exact" or (position.layer == settings.layers - 1 and position.first_of_layer):
            capture = _capture(position, p, settings)
        for source in range(len(p.incident)):
            term = torch.zeros_like(total)
            own = _polarisation(position, p, settings, source) * position.solid_angle
            factor = own if factor is None else factor
            for h in _indices(position, p, settings, source, chosen):
                amplitude = _structure_factor(h, p, settings, number, first_outside) * _lattice_factor(h, p, settings)
                term = term + torch.where(_resolved(position, p, source, settings.d_min), amplitude.square(), 0.0)
                number += 1
            if MODES[settings.mode] == "exact":
                every = p.background / (len(p.incident) * settings.oversample**2)
                term = (p.scale / steps * p.weight[source] * term + every) * own * capture
            else:
                term = p.weight[source] * term
            total = total + term
    assert factor is not None
    if MODES[settings.mode] == "nanobragg":
        total = p.scale * (p.background + total) / steps * capture * factor
    return torch.where(chosen, total, 0.0)


@dataclass(frozen=True)
class _Position:
    """Subpixel centres of a whole image, component by component."""

    direction: tuple[Tensor, Tensor, Tensor]
    solid_angle: Tensor
    layer: int
    first_of_layer: bool


def _positions(problem: ProblemTensors, settings: Settings, dtype: torch.dtype) -> Iterator[_Position]:
    origin, fast, slow, normal = problem.frame.unbind()
    sub = settings.pixel_size / settings.oversample
    rows = torch.arange(settings.slow_pixels, device=origin.device, dtype=torch.float64).unsqueeze(1)
    columns = torch.arange(settings.fast_pixels, device=origin.device, dtype=torch.float64)
    close = problem.close_distance.to(dtype)
    for layer in range(settings.layers):
        for sub_slow in range(settings.oversample):
            for sub_fast in range(settings.oversample):
                s = sub * (rows * settings.oversample + sub_slow) + sub / 2
                f = sub * (columns * settings.oversample + sub_fast) + sub / 2
                depth = layer * settings.layer_step
                p = [f * fast[i] + s * slow[i] + (depth * normal[i] + origin[i]) for i in range(3)]
                if settings.curved:
                    p = _bent(p, problem.curvature, fast, slow)
                x, y, z = (component.to(dtype) for component in p)
                r = (x * x + y * y + z * z).sqrt()
                solid_angle = 1 / r.square() if settings.point_pixel else settings.pixel_size**2 * close / r**3
                yield _Position((x / r, y / r, z / r), solid_angle, layer, sub_slow == sub_fast == 0)


def _bent(p: list[Tensor], curvature: Tensor, fast: Tensor, slow: Tensor) -> list[Tensor]:
    distance, beam = curvature[0], curvature[1:]
    start = [(distance * component).expand_as(p[1]) for component in beam]
    return _rotated(_rotated(start, slow, p[1] / distance), fast, p[2] / distance)


def _rotated(v: list[Tensor], axis: Tensor, angle: Tensor) -> list[Tensor]:
    """Rodrigues' formula."""
    cosine, sine = angle.cos(), angle.sin()
    along = (v[0] * axis[0] + v[1] * axis[1] + v[2] * axis[2]) * (1 - cosine)
    cross = [axis[(i + 1) % 3] * v[(i + 2) % 3] - axis[(i + 2) % 3] * v[(i + 1) % 3] for i in range(3)]
    return [v[i] * cosine + cross[i] * sine + axis[i] * along for i in range(3)]


def _capture(position: _Position, p: ProblemTensors, settings: Settings) -> Tensor:
    if settings.attenuation == 0 or settings.layer_step == 0:
        return torch.ones_like(position.solid_angle)
    path = settings.layer_step * settings.attenuation / _dot(position.direction, p.frame[3])
    return torch.exp(-position.layer * path) - torch.exp(-(position.layer + 1) * path)


def _polarisation(position: _Position, p: ProblemTensors, settings: Settings, source: int) -> Tensor:
    """With B and E unit, cos(2 psi) sin(2 theta)^2 = (d.E)^2 - (d.B)^2, which needs no angle."""
    incident, axis = p.incident[source], p.polarisation_axis
    if not settings.polarised:
        return torch.ones_like(position.solid_angle)
    across = torch.linalg.cross(axis, incident)
    across = across / torch.linalg.vector_norm(across)
    along = torch.linalg.cross(incident, across)
    d = position.direction
    anisotropy = _dot(d, along).square() - _dot(d, across).square()
    return (1 + _dot(d, incident).square() - p.kahn * anisotropy) / 2


def _resolved(position: _Position, p: ProblemTensors, source: int, d_min: float) -> Tensor:
    """Where the spacing ``wavelength / |d - incident|`` is at least ``d_min``."""
    square = sum((d - i).square() for d, i in zip(position.direction, p.incident[source], strict=True))
    return (
        square * d_min**2 <= p.wavelength[source].square() if d_min > 0 else torch.ones_like(square, dtype=torch.bool)
    )


@dataclass(frozen=True)
class _Indices:
    """Miller indices, the nearest whole ones, and what is left."""

    exact: tuple[Tensor, ...]
    nearest: tuple[Tensor, ...]
    rest: tuple[Tensor, ...]


def _indices(
    position: _Position, p: ProblemTensors, settings: Settings, source: int, chosen: Tensor
) -> Iterator[_Indices]:
    q = [(d - i) / p.wavelength[source] for d, i in zip(position.direction, p.incident[source], strict=True)]
    phis, mosaics = p.orientation.shape[:2]
    first = (chosen.flatten().cumsum(0) == 1).reshape(chosen.shape) & chosen
    first = first & (position.layer == 0 and position.first_of_layer and source == 0)
    for phi in range(phis):
        for mosaic in range(mosaics):
            exact = [_dot(q, axis) for axis in p.orientation[phi, mosaic]]
            if settings.phi_carryover and phi == 0:
                last = (_dot(q, axis) for axis in p.orientation[-1, mosaic])
                exact = [torch.where(first, own, carried) for own, carried in zip(exact, last, strict=True)]
            nearest = [torch.ceil(h.detach() - 0.5) for h in exact]
            rest = tuple(h - whole for h, whole in zip(exact, nearest, strict=True))
            yield _Indices(tuple(exact), tuple(nearest), rest)


def _lattice_factor(h: _Indices, p: ProblemTensors, settings: Settings) -> Tensor:
    shape = SHAPES[settings.shape]
    cells = p.cells.prod()
    if shape == "square":
        axes = [_interference(rest, n) for rest, n in zip(h.rest, p.cells, strict=True)]
        return axes[0] * axes[1] * axes[2]
    if shape == "round":
        squares = sum((n * rest).square() for rest, n in zip(h.rest, p.cells, strict=True))
        return cells * ROUND_HEIGHT * _sphere(math.pi**2 * p.fudge * squares)
    metric = p.reciprocal_metric * 1e-20  # 1/m^2 to 1/Angstrom^2
    distance = sum(h.rest[i] * metric[i, j] * h.rest[j] for i in range(3) for j in range(3))
    x = p.fudge * distance * cells.square()
    if shape == "gauss":
        return cells * torch.exp(-x / GAUSS_WIDTH)
    return torch.where(x < TOPHAT_EDGE, cells, x - x)  # 0 but where x is NaN


def _interference(rest: Tensor, cells: Tensor) -> Tensor:
    """``sin(pi N h) / sin(pi h)`` but for its sign, by the distance to the nearest index; 1 where ``N <= 1``."""
    small = rest.abs() < 1e-6
    x = torch.where(small, 0.5, rest)
    near = cells * (1 - (cells.square() - 1) * (math.pi * rest).square() / 6)
    ratio = torch.where(small, near, torch.sin(math.pi * cells * x) / torch.sin(math.pi * x))
    return torch.where(cells > 1, ratio, 1.0)


def _sphere(square: Tensor) -> Tensor:
    """``3 (sin x / x - cos x) / x^2`` of ``x^2``."""
    small = square < 0.5
    series = sum((-1) ** (k + 1) * 6 * k / math.factorial(2 * k + 1) * square ** (k - 1) for k in range(1, 9))
    x = torch.where(small, 1.0, square).sqrt()
    return torch.where(small, series, 3 * (torch.sin(x) / x - torch.cos(x)) / x.square())


def _structure_factor(
    h: _Indices, p: ProblemTensors, settings: Settings, number: int, first_outside: tuple[Tensor, Tensor] | None
) -> Tensor:
    table = p.table
    if table.numel() == 0:
        return p.default_factor
    first = (settings.first_h, settings.first_k, settings.first_l)
    place = [whole.to(torch.int64) - start for whole, start in zip(h.nearest, first, strict=True)]
    inside = _all(*((at >= 0) & (at < size) for at, size in zip(place, table.shape, strict=True)))
    at = [axis.clamp(0, size - 1) for axis, size in zip(place, table.shape, strict=True)]
    nearest = torch.where(inside, table[at[0], at[1], at[2]], p.default_factor)
    if not settings.tricubic:
        return nearest
    cubic = _interpolates(h, p, settings)
    if first_outside is not None:
        pixel, step = first_outside
        order = torch.arange(cubic.numel(), device=cubic.device).reshape(cubic.shape)
        cubic = (order < pixel) | ((order == pixel) & (number < step))
    floor = [torch.where(cubic, torch.floor(x.detach()), start + 2.0) for x, start in zip(h.exact, first, strict=True)]
    weights = [_lagrange(torch.where(cubic, x - low, 0.0)) for x, low in zip(h.exact, floor, strict=True)]
    corner = [(low - start).to(torch.int64) - 1 for low, start in zip(floor, first, strict=True)]
    corner = [axis.clamp(0, max(size - 4, 0)) for axis, size in zip(corner, table.shape, strict=True)]
    value = torch.zeros_like(nearest)
    for i in range(4):
        for j in range(4):
            for k in range(4):
                here = [
                    (axis + step).clamp(max=size - 1)
                    for axis, step, size in zip(corner, (i, j, k), table.shape, strict=True)
                ]
                value = value + weights[0][i] * weights[1][j] * weights[2][k] * table[here[0], here[1], here[2]]
    return torch.where(cubic, value, nearest)


def _interpolates(h: _Indices, p: ProblemTensors, settings: Settings) -> Tensor:
    first = (settings.first_h, settings.first_k, settings.first_l)
    return _all(
        *(
            (x >= start + 2) & (x <= start + size - 3)
            for x, start, size in zip(h.exact, first, p.table.shape, strict=True)
        )
    )


def _lagrange(t: Tensor) -> list[Tensor]:
    """Weights of the points -1, 0, 1, 2 for a value at ``t``."""
    return [
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    ]


@torch.no_grad()
def _first_outside(
    p: ProblemTensors, problem: ProblemTensors, settings: Settings, chosen: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """Pixel and step from which on nothing is interpolated, in the order the C program computes them."""
    if MODES[settings.mode] == "exact":
        return None
    none = torch.iinfo(torch.int64).max
    earliest, number = torch.full_like(chosen, none, dtype=torch.int64), 0
    for position in _positions(problem, settings, dtype):
        for source in range(len(p.incident)):
            met = chosen & _resolved(position, p, source, settings.d_min)
            for h in _indices(position, p, settings, source, chosen):
                outside = met & ~_interpolates(h, p, settings)
                earliest = torch.where(outside & (earliest == none), number, earliest)
                number += 1
    flat = earliest.flatten()
    found = flat != none
    if not bool(found.any()):
        return torch.tensor(none), torch.tensor(none)
    pixel = found.to(torch.uint8).argmax()
    return pixel, flat[pixel]


def _chosen_pixels(mask: Tensor, settings: Settings) -> Tensor:
    chosen = torch.zeros(settings.slow_pixels, settings.fast_pixels, dtype=torch.bool, device=mask.device)
    chosen[settings.slow_first : settings.slow_last + 1, settings.fast_first : settings.fast_last + 1] = True
    return chosen & mask if mask.numel() else chosen


def _dot(components: tuple[Tensor, ...] | list[Tensor], vector: Tensor) -> Tensor:
    return components[0] * vector[0] + components[1] * vector[1] + components[2] * vector[2]


def _all(first: Tensor, *others: Tensor) -> Tensor:
    for other in others:
        first = first & other
    return first
