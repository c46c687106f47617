"""Diffraction images of every kind, and their gradients by name, for the tests of the operator and of its kernels."""

from dataclasses import fields, is_dataclass, replace

import torch

from sem.ops import Curvature, DetectorFrame, Domains, Polarisation, Sources, StructureFactors


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def rotation(x, y, z):
    x, y, z = (torch.tensor(angle, dtype=torch.float64) for angle in (x, y, z))
    generator = torch.zeros(3, 3, dtype=torch.float64)
    generator[0, 1], generator[0, 2], generator[1, 2] = -z, y, -x
    return torch.linalg.matrix_exp(generator - generator.T)


def detector(slow=19, fast=37, tilt=0.06, **options):
    """Near the beam, tilted, 0.1 m away."""
    axes = rotation(tilt, -tilt / 2, tilt / 3) @ torch.tensor([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]]).double().T
    pixel = 4e-4
    origin = tensor(0.1, 0.0, 0.0) - axes[:, 0] * 0.4 * fast * pixel - axes[:, 1] * 0.6 * slow * pixel
    options.setdefault("close_distance", torch.dot(origin, axes[:, 2]))
    return DetectorFrame(origin, axes[:, 0], axes[:, 1], axes[:, 2], pixel, (slow, fast), **options)


def sources(count=2):
    offsets = torch.linspace(-1, 1, count).double() if count > 1 else tensor(0.0)
    direction = torch.stack([-0.2 + 0 * offsets, 0.003 * offsets, -0.002 * offsets.square()], 1)
    return Sources(direction, 1.1e-10 * (1 + 0.01 * offsets), 1 + 0.3 * offsets)


def domains(positions=2, mosaics=2, shape="square", cells=(4.0, 5.0, 3.0), **options):
    cell = 1e-10 * torch.tensor([[42.0, 0, 3], [4, 51, 0], [0, 5, 60]]).double()
    turned = [
        [cell @ rotation(0.3 + 0.02 * p, 0.1 - 0.01 * m, 0.2 + 0.013 * m * p).T for m in range(mosaics)]
        for p in range(positions)
    ]
    return Domains(torch.stack([torch.stack(row) for row in turned]), tensor(*cells), shape, 1.3, **options)


def table(size=25, seed=0, dtype=torch.float64):
    values = 50 * torch.rand(size, size + 1, size + 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return StructureFactors(30.0, 10 + values, tuple([-(size // 2)] * 3))


POLARISED = Polarisation(tensor(0.05, 0.02, 1.0), 0.7)
PROBLEMS = {
    "square": (detector(), sources(), domains(), StructureFactors(100.0), POLARISED),
    "round": (detector(), sources(), domains(shape="round"), StructureFactors(100.0), POLARISED),
    "gauss": (detector(), sources(), domains(shape="gauss"), StructureFactors(100.0), POLARISED),
    "tophat": (detector(), sources(), domains(shape="tophat"), StructureFactors(100.0), POLARISED),
    "one cell thin": (detector(), sources(1), domains(cells=(1.0, 6.0, 1.0)), StructureFactors(100.0), None),
    "fractional cells": (detector(), sources(1), domains(cells=(3.5, 2.25, 4.75)), StructureFactors(10.0), None),
    "many cells": (detector(), sources(1), domains(1, 1, cells=(50.0, 60.0, 70.0)), StructureFactors(10.0), None),
    "subpixels": (detector(7, 17, oversample=2), sources(), domains(), StructureFactors(100.0), POLARISED),
    "thick": (
        detector(9, 18, oversample=2, layers=3, layer_step=2e-4, attenuation=2e3),
        sources(),
        domains(),
        StructureFactors(100.0),
        POLARISED,
    ),
    "curved": (
        detector(9, 18, curvature=Curvature(tensor(0.1)[0], tensor(1.0, 0.01, -0.02))),
        sources(),
        domains(),
        StructureFactors(100.0),
        POLARISED,
    ),
    "points": (detector(point_pixel=True), sources(), domains(), StructureFactors(100.0), None),
    "table": (detector(), sources(), domains(), table(), POLARISED),
    "small table": (detector(), sources(), domains(shape="gauss"), table(3), POLARISED),
    "tricubic": (detector(), sources(), domains(), replace(table(65), tricubic=True), POLARISED),
    "tricubic and outside": (detector(), sources(), domains(), replace(table(11), tricubic=True), POLARISED),
    "carry-over": (
        detector(oversample=2),
        sources(),
        domains(3, 2, phi_carryover=True),
        StructureFactors(100.0),
        POLARISED,
    ),
    "one pixel": (detector(1, 1), sources(), domains(), table(), POLARISED),
    "no pixels": (detector(0, 5), sources(), domains(), StructureFactors(100.0), POLARISED),
}
OPTIONS = {"background": 40.0, "scale": 1.5, "d_min": 2.6e-10}


def relative_error(value, truth):
    norm = torch.linalg.vector_norm(truth.double())
    difference = torch.linalg.vector_norm(value.detach().double() - truth.double())
    return float(difference / norm) if norm > 0 else float(difference)


def here(value):
    return value


def placed(part, place):
    """A problem, or a part of it, with every tensor where the kernels under test run."""
    if isinstance(part, tuple):
        return tuple(placed(each, place) for each in part)
    if not is_dataclass(part):
        return place(part) if isinstance(part, torch.Tensor) else part
    return replace(part, **{field.name: placed(getattr(part, field.name), place) for field in fields(part)})


def leaves(problem, options, place=here):
    """The problem with every tensor and number that has a gradient made a fresh leaf, and those leaves by name."""
    found = {}

    def leaf(name, value, dtype=torch.float64):
        found[name] = place(torch.as_tensor(value, dtype=dtype).detach().clone()).requires_grad_()
        return found[name]

    frame, beam, crystal, factors, polarisation = problem
    curvature = frame.curvature
    if curvature is not None:
        curvature = Curvature(leaf("curvature.distance", curvature.distance), leaf("curvature.beam", curvature.beam))
    frame = replace(
        frame,
        **{name: leaf(name, getattr(frame, name)) for name in ("origin", "fast", "slow", "normal", "close_distance")},
        curvature=curvature,
    )
    beam = Sources(*(leaf(name, getattr(beam, name)) for name in ("direction", "wavelength", "weight")))
    metric = None
    if crystal.shape == "gauss":
        cell = crystal.orientation[0, 0]
        metric = leaf("reciprocal_metric", torch.linalg.inv(cell @ cell.T))
    crystal = replace(
        crystal,
        orientation=leaf("orientation", crystal.orientation),
        cells=leaf("cells", crystal.cells),
        fudge=leaf("fudge", crystal.fudge),
        reciprocal_metric=metric if metric is not None else crystal.reciprocal_metric,
    )
    values = None if factors.table is None else leaf("table", factors.table)
    factors = replace(factors, default=leaf("default", factors.default), table=values)
    if polarisation is not None:
        polarisation = Polarisation(leaf("axis", polarisation.axis), leaf("kahn", polarisation.kahn))
    numbers = {name: leaf(name, options[name]) for name in ("background", "scale")}
    return (frame, beam, crystal, factors, polarisation), options | numbers, found


def gradients(function, problem, options, direction, place=here):
    arguments, options, found = leaves(problem, options, place)
    out = function(*arguments, **options)
    grads = torch.autograd.grad((out * place(direction.to(out.dtype))).sum(), list(found.values()), allow_unused=True)
    zeros = (
        torch.zeros_like(tensor) if grad is None else grad for grad, tensor in zip(grads, found.values(), strict=True)
    )
    return dict(zip(found, zeros, strict=True)), found
