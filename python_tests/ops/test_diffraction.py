"""sem.ops.diffraction against its float64 twin: values, every gradient, what a pixel depends on, errors."""

from dataclasses import replace

import pytest
import torch

from sem.ops import (
    Curvature,
    DetectorFrame,
    Domains,
    Polarisation,
    Region,
    Sources,
    StructureFactors,
    diffraction,
    diffraction_trace,
    reference_diffraction,
)

twin = reference_diffraction.diffraction


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
    "carry-over": (detector(), sources(), domains(3, 2, phi_carryover=True), StructureFactors(100.0), POLARISED),
    "one pixel": (detector(1, 1), sources(), domains(), table(), POLARISED),
    "no pixels": (detector(0, 5), sources(), domains(), StructureFactors(100.0), POLARISED),
}
OPTIONS = {"background": 40.0, "scale": 1.5, "d_min": 2.6e-10}


def relative_error(value, truth):
    norm = torch.linalg.vector_norm(truth.double())
    difference = torch.linalg.vector_norm(value.detach().double() - truth.double())
    return float(difference / norm) if norm > 0 else float(difference)


def leaves(problem, options):
    """The problem with every tensor and number that has a gradient made a fresh leaf, and those leaves by name."""
    found = {}

    def leaf(name, value, dtype=torch.float64):
        found[name] = torch.as_tensor(value, dtype=dtype).detach().clone().requires_grad_()
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


def gradients(function, problem, options, direction):
    arguments, options, found = leaves(problem, options)
    out = function(*arguments, **options)
    grads = torch.autograd.grad((out * direction.to(out.dtype)).sum(), list(found.values()), allow_unused=True)
    zeros = (
        torch.zeros_like(tensor) if grad is None else grad for grad, tensor in zip(grads, found.values(), strict=True)
    )
    return dict(zip(found, zeros, strict=True)), found


@pytest.mark.parametrize("mode", ["nanobragg", "exact"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_values_match_the_float64_twin(name, mode):
    for options in ({}, OPTIONS):
        image = diffraction(*PROBLEMS[name], mode=mode, **options)
        truth = twin(*PROBLEMS[name], mode=mode, **options)
        assert image.dtype == torch.float32 and image.shape == truth.shape
        assert relative_error(image, truth) <= 5e-7
        if truth.numel():
            assert float((image.double() - truth).abs().max() / truth.max()) <= 1e-6


@pytest.mark.parametrize("mode", ["nanobragg", "exact"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_match_the_float64_twin(name, mode):
    problem = PROBLEMS[name]
    shape = problem[0].shape
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    grads, found = gradients(diffraction, problem, OPTIONS | {"mode": mode}, direction)
    truth, _ = gradients(twin, problem, OPTIONS | {"mode": mode}, direction)
    for key, want in truth.items():
        assert grads[key].dtype == found[key].dtype and grads[key].shape == want.shape, key
        assert relative_error(grads[key], want) <= 1e-5, key


def small(name):
    """A few pixels of a problem, for finite differences."""
    frame, *others = PROBLEMS[name]
    return (replace(frame, shape=(min(2, frame.shape[0]), 3)), *others)


@pytest.mark.parametrize("name", ["square", "round", "gauss", "thick", "curved", "tricubic"])
def test_gradcheck_of_the_twin(name):
    """In units that make every argument about one, so that one step fits all."""
    problem = small(name)
    if name == "tricubic":
        problem = (*problem[:3], replace(table(13), tricubic=True), problem[4])
    for mode in ("nanobragg", "exact"):
        arguments, options, found = leaves(problem, {"background": 4.0, "scale": 1.5, "mode": mode})
        sizes = {key: value.detach().abs().max().clamp(min=1e-30) for key, value in found.items()}

        def image(*scaled, arguments=arguments, options=options, found=found, sizes=sizes):
            values = {id(found[key]): value * sizes[key] for key, value in zip(found, scaled, strict=True)}

            def put(part):
                if isinstance(part, torch.Tensor):
                    return values.get(id(part), part)
                if hasattr(part, "__dataclass_fields__"):
                    return replace(part, **{key: put(getattr(part, key)) for key in part.__dataclass_fields__})
                return part

            return twin(*(put(part) for part in arguments), **{key: put(value) for key, value in options.items()}) / 1e5

        units = [(value.detach() / sizes[key]).requires_grad_() for key, value in found.items()]
        assert torch.autograd.gradcheck(image, units, eps=1e-8, atol=1e-3, rtol=1e-3, fast_mode=True)


def test_the_first_axis_by_hand():
    """On the beam every phase agrees: F_latt is Na Nb Nc, the polarisation factor 1, the solid angle pixel^2 / R^2."""
    frame = DetectorFrame([0.1, 5e-5, -5e-5], [0, 0, 1], [0, -1, 0], [1, 0, 0], 1e-4, (1, 1), 0.1)
    beam = Sources(tensor([-1.0, 0, 0]), tensor(1e-10))
    crystal = Domains(1e-8 * torch.eye(3).reshape(1, 1, 3, 3), [4, 5, 6])
    image = diffraction(
        frame, beam, crystal, StructureFactors(10.0), Polarisation([0, 0, 1]), scale=2.0, background=7.0
    )
    assert float(image) == pytest.approx(2 * (7 + 100 * 120.0**2) * 1e-6, rel=1e-6)


def test_a_pixel_depends_on_itself_alone():
    problem = PROBLEMS["table"]
    whole = diffraction(*problem, **OPTIONS)
    part = diffraction(*problem, Region(roi=(3, 20, 5, 11)), **OPTIONS)
    inside = torch.zeros_like(whole, dtype=torch.bool)
    inside[5:12, 3:21] = True
    assert torch.equal(part, torch.where(inside, whole, 0))
    mask = torch.rand(whole.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    assert torch.equal(diffraction(*problem, Region(mask=mask), **OPTIONS), torch.where(mask, whole, 0))
    both = diffraction(*problem, Region((3, 20, 5, 11), mask), **OPTIONS)
    assert torch.equal(both, torch.where(mask & inside, whole, 0))


@pytest.mark.parametrize("name", ["carry-over", "tricubic and outside"])
def test_regions_keep_the_order_of_pixels(name):
    """What the first computed pixel decides is decided by the region's, in the kernel as in the twin."""
    problem = PROBLEMS[name]
    mask = torch.rand(problem[0].shape, generator=torch.Generator().manual_seed(3)) < 0.5
    region = Region((2, 33, 4, 17), mask)
    direction = torch.randn(problem[0].shape, generator=torch.Generator().manual_seed(1))
    assert relative_error(diffraction(*problem, region), twin(*problem, region)) <= 5e-7

    def within(function):
        return lambda *arguments, **options: function(*arguments, region, **options)

    grads, _ = gradients(within(diffraction), problem, OPTIONS, direction)
    truth, _ = gradients(within(twin), problem, OPTIONS, direction)
    for key, want in truth.items():
        assert relative_error(grads[key], want) <= 1e-5, key


def test_gradients_of_dropped_pixels_are_dropped():
    problem = PROBLEMS["square"]
    direction = torch.full(problem[0].shape, torch.nan)
    direction[:, 5] = 1.0
    mask = torch.zeros(problem[0].shape, dtype=torch.bool)
    mask[:, 5] = True
    grads, _ = gradients(lambda *a, **k: diffraction(*a, Region(mask=mask), **k), problem, OPTIONS, direction)
    assert all(torch.isfinite(grad).all() for grad in grads.values())


@pytest.mark.parametrize("name", ["square", "table", "tricubic and outside", "curved"])
def test_bits_do_not_depend_on_threads(name):
    problem, threads = PROBLEMS[name], torch.get_num_threads()
    direction = torch.randn(problem[0].shape, generator=torch.Generator().manual_seed(1))
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            grads, _ = gradients(diffraction, problem, OPTIONS, direction)
            results.append([diffraction(*problem, **OPTIONS), *grads.values()])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_carry_over_reaches_every_pixel_but_the_first():
    frame, beam, crystal, factors, polarisation = PROBLEMS["carry-over"]
    fresh = diffraction(frame, beam, replace(crystal, phi_carryover=False), factors, polarisation)
    carried = diffraction(frame, beam, crystal, factors, polarisation)
    assert carried[0, 0] == fresh[0, 0]
    assert (carried != fresh).flatten()[1:].float().mean() > 0.9
    last_first = torch.cat([crystal.orientation[-1:], crystal.orientation[1:]])
    repeated = diffraction(frame, beam, Domains(last_first, crystal.cells, fudge=1.3), factors, polarisation)
    assert torch.equal(repeated.flatten()[1:], carried.flatten()[1:])


def test_one_reflection_outside_ends_interpolation_for_all_that_follow():
    frame, beam, crystal, factors, polarisation = PROBLEMS["tricubic and outside"]
    nearest = replace(factors, tricubic=False)
    for mode, share in (("nanobragg", 0.0), ("exact", 0.05)):
        with_cubic = diffraction(frame, beam, crystal, factors, polarisation, mode=mode)
        without = diffraction(frame, beam, crystal, nearest, polarisation, mode=mode)
        changed = (with_cubic != without).flatten()
        assert changed.float().mean() >= share
        if mode == "nanobragg":
            assert not changed[changed.numel() // 2 :].any()


def trace_of(name, pixel, dtype):
    return diffraction_trace(pixel, *PROBLEMS[name], dtype=dtype)


@pytest.mark.parametrize("name", ["square", "round", "gauss", "table", "thick", "tricubic"])
def test_traces_of_both_precisions_agree(name):
    image = diffraction(*PROBLEMS[name])
    slow, fast = image.shape
    for pixel in ((0, 0), (slow - 1, fast - 1), (slow // 2, fast // 3), (2, 5)):
        single, double = trace_of(name, pixel, torch.float32), trace_of(name, pixel, torch.float64)
        assert [(v.name, v.step) for v in single] == [(v.name, v.step) for v in double]
        assert float(image[pixel]) == pytest.approx(double[-1].values[0], rel=2e-6)
        for a, b in zip(single, double, strict=True):
            limit = 1e-6 * max(1.0, *(abs(x) for x in b.values)) if b.name.startswith("F_latt") else 0.0
            assert a.values == pytest.approx(b.values, rel=1e-6, abs=limit), (a, b)


def test_the_trace_names_what_a_pixel_is_made_of():
    names = {value.name for value in trace_of("square", (3, 4), torch.float64)}
    assert names >= {"hkl_frac", "F_latt_a", "F_latt", "F_cell", "omega_pixel_sr", "polar", "I_before_scaling"}
    steps = [value.step for value in trace_of("square", (3, 4), torch.float64) if value.name == "F_cell"]
    assert steps == [(0, 0, s, p, m) for s in range(2) for p in range(2) for m in range(2)]


def test_torch_transforms():
    frame, beam, crystal, factors, polarisation = PROBLEMS["square"]

    def total(orientation):
        return diffraction(frame, beam, replace(crystal, orientation=orientation), factors, polarisation).sum()

    orientation = crystal.orientation.clone().requires_grad_()
    (plain,) = torch.autograd.grad(total(orientation), orientation)
    assert torch.equal(torch.func.grad(total)(crystal.orientation), plain)
    assert torch.equal(torch.autograd.grad(torch.compile(total, fullgraph=True)(orientation), orientation)[0], plain)
    batch = torch.stack([crystal.orientation, 1.01 * crystal.orientation])
    expected = torch.stack([torch.func.grad(total)(entry) for entry in batch])
    assert torch.equal(torch.vmap(torch.func.grad(total))(batch), expected)
    with pytest.raises(NotImplementedError, match="first derivatives"):
        (grad,) = torch.autograd.grad(total(orientation), orientation, create_graph=True)
        grad.sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(total(crystal.orientation), total(orientation).detach())


def changed(**parts):
    names = ("detector", "sources", "domains", "factors", "polarisation")
    problem = dict(zip(names, PROBLEMS["table"], strict=True))
    options = {name: value for name, value in parts.items() if name not in names}
    for name in names:
        if name in parts:
            problem[name] = replace(problem[name], **parts[name])
    return lambda: diffraction(*problem.values(), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (changed(sources={"wavelength": tensor(1e-10, -1e-10)}), "wavelength: expected values > 0"),
        (changed(sources={"wavelength": tensor(1e-10)}), r"wavelength: expected shape \[2\], got \[1\]"),
        (
            changed(sources={"direction": tensor([0.0, 0, 0], [1, 0, 0])}),
            "direction: expected vectors that are not",
        ),
        (changed(sources={"direction": tensor(1.0, 0, 0)}), r"direction: expected shape \[S, 3\]"),
        (changed(domains={"cells": [5, 5]}), r"cells: expected shape \[3\]"),
        (changed(domains={"cells": [5, -5, 5]}), "cells: expected values > 0"),
        (changed(domains={"shape": "cube"}), "shape: expected one of 'square'"),
        (changed(domains={"fudge": -1.0}), "fudge: expected a number >= 0"),
        (changed(domains={"orientation": torch.eye(3)}), r"orientation: expected shape \[P, M, 3, 3\]"),
        (changed(detector={"close_distance": 0.0}), "close_distance: expected a number > 0"),
        (changed(detector={"pixel_size": -1e-4}), "pixel_size: expected a finite number > 0"),
        (changed(detector={"oversample": 0}), "oversample: expected at least 1"),
        (changed(detector={"shape": (3,)}), "shape: expected"),
        (changed(detector={"origin": "here"}), "origin: expected a torch.Tensor, got str"),
        (changed(factors={"table": torch.zeros(3, 3)}), r"table: expected shape \[H, K, L\]"),
        (changed(factors={"table": torch.zeros(3, 3, 3, dtype=torch.int32)}), "table: expected a float32 or float64"),
        (changed(factors={"first_index": (1.5, 0, 0)}), "first_index: expected three ints"),
        (changed(polarisation={"axis": [0.0, 0, 0]}), "axis: expected a vector that is not zero"),
        (changed(region=Region(roi=(0, 99, 0, 1))), "roi: expected .* inside 19 slow x 37 fast"),
        (changed(region=Region(mask=torch.ones(3, 3, dtype=torch.bool))), r"mask: expected shape \[19, 37\]"),
        (changed(region=Region(mask=torch.ones(19, 37))), "mask: expected a bool tensor"),
        (changed(mode="fast"), "mode: expected one of 'nanobragg', 'exact'"),
        (changed(d_min=-1.0), "d_min: expected a finite number >= 0"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
