"""sem.ops.diffraction at its limits: nothing to compute, NaN, memory."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sem.ops import DetectorFrame, Domains, Polarisation, Region, Sources, StructureFactors, diffraction
from sem.ops.diffraction.reference import diffraction as twin


def detector(slow=7, fast=21):
    half_slow, half_fast = slow * 2e-4, fast * 2e-4
    axes = ([0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0])
    return DetectorFrame([0.1, half_slow, -half_fast], *axes, 4e-4, (slow, fast), 0.1)


def problem(shape="square", slow=7, fast=21, cells=(4.0, 5.0, 3.0), table=None):
    cell = 1e-10 * torch.tensor([[42.0, 0, 3], [4, 51, 0], [0, 5, 60]]).double()
    orientation = torch.stack([cell, 1.01 * cell]).unsqueeze(0)
    factors = StructureFactors(30.0, table, (-4, -4, -4))
    beam = Sources(torch.tensor([[-1.0, 0, 0]]).double(), torch.tensor([1.1e-10]).double())
    return [detector(slow, fast), beam, Domains(orientation, cells, shape), factors, Polarisation([0.0, 0.0, 1.0])]


def with_gradient(arguments, **parts):
    """The problem with leaves in place of some fields of its parts, the image, and the gradients of its sum."""
    leaves = {}
    for name, (place, value) in parts.items():
        leaves[name] = torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()
        arguments[place] = replace(arguments[place], **{name: leaves[name]})
    return arguments, leaves


@pytest.mark.parametrize(("slow", "fast"), [(0, 5), (5, 0), (0, 0)])
def test_a_detector_without_pixels(slow, fast):
    arguments, leaves = with_gradient(problem(slow=slow, fast=fast), cells=(2, [4.0, 5, 3]))
    image = diffraction(*arguments)
    assert image.shape == (slow, fast)
    image.sum().backward()
    assert torch.equal(leaves["cells"].grad, torch.zeros(3, dtype=torch.float64))


def test_a_mask_that_leaves_nothing():
    arguments, leaves = with_gradient(problem(), cells=(2, [4.0, 5, 3]), origin=(0, [0.1, 0.0014, -0.0042]))
    image = diffraction(*arguments, Region(mask=torch.zeros(7, 21, dtype=torch.bool)))
    image.sum().backward()
    assert not image.any()
    assert all(not leaf.grad.any() for leaf in leaves.values())


@pytest.mark.parametrize("shape", ["square", "round", "gauss", "tophat"])
@pytest.mark.parametrize("mode", ["nanobragg", "exact"])
def test_nan_orientation_is_a_nan_image(shape, mode):
    arguments = problem(shape)
    orientation = arguments[2].orientation.clone()
    orientation[0, 1, 0, 0] = torch.nan
    metric = torch.eye(3, dtype=torch.float64) * 1e16
    arguments[2] = replace(arguments[2], orientation=orientation, reciprocal_metric=metric)
    assert torch.isnan(diffraction(*arguments, mode=mode)).all()
    assert torch.isnan(twin(*arguments, mode=mode)).all()


@pytest.mark.parametrize("tricubic", [False, True])
def test_a_nan_structure_factor_stays_with_its_reflection(tricubic):
    table = torch.full((9, 9, 9), 50.0, dtype=torch.float64)
    arguments = problem(table=table)
    arguments[3] = replace(arguments[3], tricubic=tricubic)
    clean = diffraction(*arguments, mode="exact")
    table = table.clone()
    table[4, 4, 4] = torch.nan  # of index 0 0 0, about the beam
    arguments[3] = replace(arguments[3], table=table)
    image = diffraction(*arguments, mode="exact")
    hit = torch.isnan(image)
    assert torch.equal(hit, torch.isnan(twin(*arguments, mode="exact")))
    assert 0 < hit.sum() < hit.numel()
    assert torch.equal(image[~hit], clean[~hit])


@pytest.mark.parametrize("outside", [0, 1])
def test_interpolation_ends_within_a_pixel(outside):
    """Of two reflections of one pixel one is outside: what comes before it is interpolated, what comes after is not."""
    table = 10 + 50 * torch.rand(9, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    arguments = problem(slow=1, fast=1, table=table)
    arguments[0] = replace(arguments[0], origin=[0.1, 0.003, 0.002])
    small = arguments[2].orientation[:, :1]
    pair = [small, 40 * small]
    arguments[2] = replace(arguments[2], orientation=torch.cat(pair if outside else pair[::-1], dim=1))
    nearest = diffraction(*arguments)
    arguments[3] = replace(arguments[3], tricubic=True)
    image = diffraction(*arguments)
    torch.testing.assert_close(image.double(), twin(*arguments), rtol=2e-6, atol=0.0)
    assert torch.equal(image, nearest) == (outside == 0)


def test_nan_in_the_images_gradient_reaches_what_that_pixel_reaches():
    table = torch.full((9, 9, 9), 50.0, dtype=torch.float64, requires_grad=True)
    grad = torch.ones(7, 21)
    grad[0, 0] = torch.nan
    (found,) = torch.autograd.grad(diffraction(*problem(table=table)), table, grad)
    (truth,) = torch.autograd.grad(twin(*problem(table=table)), table, grad.double())
    assert torch.isnan(found).any()
    assert torch.equal(torch.isnan(found), torch.isnan(truth))


def test_a_skipped_axis_counts_nothing():
    """N <= 1 along an axis gives a factor 1, whatever N is, and no gradient."""
    images = []
    for cells in ([4.0, 1.0, 3.0], [4.0, 0.3, 3.0]):
        arguments, leaves = with_gradient(problem(), cells=(2, cells))
        images.append(diffraction(*arguments))
        images[-1].sum().backward()
        assert leaves["cells"].grad[1] == 0 and leaves["cells"].grad[0] != 0
    assert torch.equal(*images)


@pytest.mark.parametrize("wanted", ["origin", "wavelength", "kahn"])
def test_gradients_that_nobody_asks_for_change_no_others(wanted):
    """Those of detector and beam are left out where none of them is read."""
    orientation = problem()[2].orientation
    alone, leaves = with_gradient(problem(), orientation=(2, orientation))
    diffraction(*alone).sum().backward()
    places = {"origin": (0, problem()[0].origin), "wavelength": (1, [1.1e-10]), "kahn": (4, 0.5)}
    both, more = with_gradient(problem(), orientation=(2, orientation), **{wanted: places[wanted]})
    exact, truth = with_gradient(problem(), orientation=(2, orientation), **{wanted: places[wanted]})
    diffraction(*both).sum().backward()
    twin(*exact).sum().backward()
    for name, leaf in truth.items():
        assert (more[name].grad - leaf.grad).norm() <= 1e-5 * leaf.grad.norm()
    if wanted == "origin":
        assert torch.equal(more["orientation"].grad, leaves["orientation"].grad)


MEMORY = """
import resource, torch
from sem.ops import DetectorFrame, Domains, Polarisation, Sources, StructureFactors, diffraction

def run(side, backward):
    axes = ([0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0])
    detector = DetectorFrame([0.1, side * 5e-5, -side * 5e-5], *axes, 1e-4, (side, side), 0.1)
    beam = Sources(torch.tensor([[-1.0, 0, 0]]).double(), torch.tensor([1e-10]).double())
    cell = (1e-8 * torch.eye(3, dtype=torch.float64)).expand(4, 5, 3, 3).clone().requires_grad_(backward)
    image = diffraction(detector, beam, Domains(cell, [5, 5, 5]), StructureFactors(100.0), Polarisation([0, 0, 1.0]))
    if backward:
        image.backward(torch.ones_like(image))

run(64, True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for backward in (False, True):
    run(2048, backward)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of the process in kilobytes")
def test_memory_is_at_most_three_images():
    """Output, the gradient given to it, and one image's worth of everything else."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    forward, both = (1024 * int(line) / (4 * 2048**2) for line in done.stdout.split())
    assert forward <= 1.5
    assert both <= 3
