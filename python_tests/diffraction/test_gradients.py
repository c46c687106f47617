"""Every parameter of the parts has the gradient of the image: gradcheck of the twin, the kernel against the twin."""

import pytest
import torch

from sem.diffraction import Beam, Crystal, Detector, Reflections, Simulator, SourceRow, custom
from sem.diffraction.beam import DEFAULT_FLUENCE

TRICLINIC = (70, 80, 90, 75, 85, 95)


def table():
    generator = torch.Generator().manual_seed(3)
    return Reflections(20.0, 50 + 20 * torch.rand(13, 13, 13, dtype=torch.float64, generator=generator), (-6, -6, -6))


def simulator(pixels, kind="square", steps=2, **options):
    """A small experiment in which nothing is at the special value where a gradient vanishes."""
    crystal = Crystal(
        TRICLINIC,
        cells=(3, 4, 5),
        shape=kind,
        fudge=1.1,
        misset=(-90, -31, 178),
        phi=3,
        oscillation=1,
        phi_steps=steps,
        mosaic_spread=0.7,
        mosaic_domains=2,
    )
    beam = Beam(
        1.1,
        polarisation=0.4,
        divergence=(1.0, 2.0 if steps > 1 else None),
        divergence_steps=(steps, None),
        dispersion=0.01,
        dispersion_steps=steps,
    )
    detector = Detector((pixels, pixels), 12.8 / pixels, 90, rotation=(4, 3, 2), two_theta=5, convention="MOSFLM")
    return Simulator(crystal, beam, detector, table(), water=3, **options)


def by_rows(**options):
    rows = (SourceRow((-1, 0.01, 0.02), 1.0, 1.05), SourceRow((-0.9, -0.01, 0.0), 2.0))
    whole = simulator(3, source_weighting="relative", **options)
    return Simulator(
        whole.crystal,
        Beam(1.1, sources=rows),
        whole.detector,
        whole.reflections,
        source_weighting="relative",
        **options,
    )


def about_sample():
    whole = simulator(3)
    detector = Detector(
        (3, 3), 4.2, close_distance=90, convention="XDS", near_point=(6, 7), rotation=(4, 3, 2), two_theta=5
    )
    crystal = Crystal(reciprocal=whole.crystal.vectors()[1].detach(), cells=(3, 4, 5))
    return Simulator(crystal, whole.beam, detector, whole.reflections)


def curved():
    whole = simulator(3, steps=1, physics="exact")
    detector = Detector(
        (3, 3), 4.2, convention=custom(beam=(1, 0.01, 0), polarisation=(0, 0.1, 1)), thickness=50, layers=2,
        attenuation_depth=200, curved=True, rotation=(1, 2, 3),
    )  # fmt: skip
    return Simulator(whole.crystal, whole.beam, detector, whole.reflections, physics="exact", water=3)


EXPERIMENTS = {
    "square": lambda: simulator(3),
    "square exact": lambda: simulator(3, physics="exact"),
    "round": lambda: simulator(3, "round"),
    "gauss": lambda: simulator(3, "gauss"),
    "interpolated": lambda: simulator(3, steps=1, interpolate=True, physics="exact"),
    "rows": by_rows,
    "sample": about_sample,
    "curved": curved,
}
UNIT = {"beam.fluence": DEFAULT_FLUENCE, "reflections.table": 50.0, "crystal.reciprocal": 0.1}
"""What a step of 1 is where that is not 1 of the parameter's own unit."""


def displaced(made, name, offset):
    """The image of the twin with one parameter moved by ``offset``, in units."""
    value = dict(made.named_parameters())[name].detach() + offset * UNIT.get(name, 1.0)
    return torch.func.functional_call(made, {name: value}, kwargs={"reference": True})


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_gradcheck_of_the_twin(experiment):
    made = EXPERIMENTS[experiment]()
    scale = made(reference=True).detach().abs().max()
    generator = torch.Generator().manual_seed(1)
    for name, value in made.named_parameters():
        # a table has too many entries for a column each: all move along one random direction
        along = torch.ones(1) if value.numel() < 30 else torch.randn(value.shape, generator=generator)
        start = torch.zeros(value.shape if value.numel() < 30 else (), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda offset, name=name, along=along, start=start: (
                displaced(made, name, (offset * along).reshape(along.shape if along.dim() > 1 else start.shape)) / scale
            ),
            start,
            atol=1e-6,
            rtol=1e-4,
            fast_mode=True,  # one random combination of the pixels per parameter, in place of each pixel on its own
        ), name


def gradients(made, weights, *, reference):
    made.refine(*(name for name, _ in made.named_parameters()))
    (made(reference=reference).double() * weights).sum().backward()
    return {name: value.grad for name, value in made.named_parameters()}


def weights_of(made):
    shape = (made.detector.slow_pixels, made.detector.fast_pixels)
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_every_parameter_reaches_some_image():
    reached, known = set(), set()
    for make in EXPERIMENTS.values():
        made = make()
        found = gradients(made, weights_of(made), reference=True)
        known |= set(found)
        reached |= {name for name, grad in found.items() if grad is not None and bool((grad != 0).any())}
    assert known - reached == set()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_kernel_gradients_are_those_of_the_twin(experiment):
    make = EXPERIMENTS[experiment]
    weights = weights_of(make())
    exact, native = (gradients(make(), weights, reference=reference) for reference in (True, False))
    for name, expected in exact.items():
        if expected is None or not bool((expected != 0).any()):
            assert native[name] is None or not bool((native[name] != 0).any()), name
            continue
        assert (native[name] - expected).norm() <= 1e-4 * expected.norm(), name


def test_only_what_is_refined_asks_for_gradients():
    made = simulator(3)
    (misset,) = made.refine("crystal.misset")
    made(reference=True).sum().backward()
    assert misset.grad is not None
    assert [name for name, value in made.named_parameters() if value.requires_grad] == ["crystal.misset"]
    with pytest.raises(ValueError, match="parameter: expected one of water, crystal.lengths, .* got 'crystal.missed'"):
        made.refine("crystal.missed")
