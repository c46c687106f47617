"""sem.ops.diffraction against its float64 twin: values, every gradient, what a pixel depends on, errors."""

from dataclasses import replace

import pytest
import torch
from diffraction_problems import OPTIONS, PROBLEMS, gradients, leaves, relative_error, table, tensor

from sem.ops import (
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
from sem.ops.diffraction.operator import diffraction_serial

twin = reference_diffraction.diffraction


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
def test_the_serial_reference_and_the_twin_are_one_image(name, mode):
    mask = torch.rand(PROBLEMS[name][0].shape, generator=torch.Generator().manual_seed(3)) < 0.5
    for options in ({}, OPTIONS, {"region": Region(mask=mask)}):
        image = diffraction_serial(*PROBLEMS[name], mode=mode, **options)
        truth = twin(*PROBLEMS[name], mode=mode, **options).detach()
        assert image.dtype == torch.float64 and not image.requires_grad
        assert relative_error(image, truth) <= 1e-12


def test_a_trace_of_the_reference_ends_with_the_pixel_of_its_image():
    image = diffraction_serial(*PROBLEMS["subpixels"], **OPTIONS)
    for pixel in ((0, 0), (5, 7), divmod(int(image.argmax()), image.shape[1])):
        last = diffraction_trace(pixel, *PROBLEMS["subpixels"], **OPTIONS)[-1]
        assert (last.name, last.values) == ("I_pixel_final", (float(image[pixel]),))


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


@pytest.mark.parametrize("image", [diffraction, twin], ids=["kernel", "twin"])
@pytest.mark.parametrize("single", [True, False], ids=["one place and source", "several"])
def test_carry_over_reaches_every_step_but_the_first(single, image):
    frame, beam, crystal, factors, polarisation = PROBLEMS["carry-over"]
    assert frame.oversample > 1 and len(beam.wavelength) > 1
    if single:
        frame, beam = replace(frame, oversample=1, layers=1), Sources(beam.direction[:1], beam.wavelength[:1])
    last_first = torch.cat([crystal.orientation[-1:], crystal.orientation[1:]])
    fresh, carried, repeated = (
        image(frame, beam, domains, factors, polarisation)
        for domains in (replace(crystal, phi_carryover=False), crystal, Domains(last_first, crystal.cells, fudge=1.3))
    )
    assert (carried != fresh).flatten()[1:].float().mean() > 0.9
    assert torch.equal(repeated.flatten()[1:], carried.flatten()[1:])
    assert (carried[0, 0] == fresh[0, 0]) == single
    assert carried[0, 0] != repeated[0, 0]


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
        (changed(sources={"wavelength": tensor(1e-10)}), r"wavelength: expected shape \[2\], got \[1\]"),
        (changed(sources={"direction": tensor(1.0, 0, 0)}), r"direction: expected shape \[S, 3\]"),
        (changed(domains={"cells": [5, 5]}), r"cells: expected shape \[3\]"),
        (changed(domains={"shape": "cube"}), "shape: expected one of 'square'"),
        (changed(domains={"orientation": torch.eye(3)}), r"orientation: expected shape \[P, M, 3, 3\]"),
        (changed(detector={"pixel_size": -1e-4}), "pixel_size: expected a finite number > 0"),
        (changed(detector={"oversample": 0}), "oversample: expected at least 1"),
        (changed(detector={"shape": (3,)}), "shape: expected"),
        (changed(detector={"origin": "here"}), "origin: expected a torch.Tensor, got str"),
        (changed(factors={"table": torch.zeros(3, 3)}), r"table: expected shape \[H, K, L\]"),
        (changed(factors={"table": torch.zeros(3, 3, 3, dtype=torch.int32)}), "table: expected a float32 or float64"),
        (changed(factors={"first_index": (1.5, 0, 0)}), "first_index: expected three ints"),
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


# On a device nothing looks at values: it would wait for them.
@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (changed(sources={"wavelength": tensor(1e-10, -1e-10)}), "wavelength: expected values > 0"),
        (
            changed(sources={"direction": tensor([0.0, 0, 0], [1, 0, 0])}),
            "direction: expected vectors that are not",
        ),
        (changed(domains={"cells": [5, -5, 5]}), "cells: expected values > 0"),
        (changed(domains={"fudge": -1.0}), "fudge: expected a number >= 0"),
        (changed(detector={"close_distance": 0.0}), "close_distance: expected a number > 0"),
        (changed(polarisation={"axis": [0.0, 0, 0]}), "axis: expected a vector that is not zero"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_cell_that_spans_no_space_is_refused():
    flat = Domains(torch.zeros(1, 1, 3, 3, dtype=torch.float64), [5, 5, 5], "gauss")
    detector = DetectorFrame([0.1, 0, 0], [0.0, 0, 1], [0.0, -1, 0], [1.0, 0, 0], 1e-4, (4, 4), 0.1)
    sources = Sources(torch.tensor([[-1.0, 0, 0]]), torch.tensor([1e-10]))
    with pytest.raises(ValueError, match="orientation: expected cells whose three vectors span the space"):
        diffraction(detector, sources, flat, StructureFactors(1.0))
