"""Every golden image of the C program, from the C program's own command line."""

import shlex

import numpy as np
import pytest
import torch
from golden_images import (
    CASES,
    GOLDEN,
    IMAGES,
    LARGEST_ERROR,
    LEAST_CORRELATION,
    PARITY,
    PEAKS,
    flags_of,
    golden_and,
    image_of,
    write_inputs,
)

from sem.diffraction.comparison import compare, distinct_values


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with the files that the command lines name."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(params=[False, True], ids=["kernel", "twin"])
def reference(request):
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_the_c_programs_image(name, reference, inputs, monkeypatch):
    monkeypatch.chdir(inputs)
    result = compare(*golden_and(name, image_of(flags_of(name), reference=reference)))
    assert result.relative_difference <= LARGEST_ERROR
    assert result.correlation >= LEAST_CORRELATION


def test_tophat_is_equal_outside_the_edges_of_spots(reference):
    golden = torch.from_numpy(IMAGES["tophat"]).double()
    image = image_of(shlex.split(CASES["tophat"])[1:], reference=reference).double()
    inside = golden > 0
    area = torch.nn.functional.max_pool2d(inside[None, None].double(), 3, 1, 1)[0, 0]
    hole = -torch.nn.functional.max_pool2d(-inside[None, None].double(), 3, 1, 1)[0, 0]
    away = area == hole
    assert 0.5 < away.double().mean() < 1
    assert ((image > 0) == inside)[away].all()
    assert ((image - golden).abs() <= 2e-6 * golden)[away].all()


def test_carry_over_changes_step_0_alone():
    flags = shlex.split(CASES["phi0_carryover"])[1:]
    golden = torch.from_numpy(IMAGES["phi0_carryover"])
    assert compare(golden, image_of(flags, reference=True)).relative_difference > 1e-3
    later = [*flags, "-phi", "10"]
    fresh, carried = (image_of([*later, *more], reference=True) for more in ([], PARITY["phi0_carryover"]))
    assert torch.equal(fresh, carried)


def test_exact_physics_leaves_the_golden_image_of_an_oblique_cell():
    flags = [*shlex.split(CASES["triclinic_N5"])[1:], "-physics", "exact"]
    assert compare(torch.from_numpy(IMAGES["triclinic_N5"]), image_of(flags)).relative_difference > 1e-3


@pytest.mark.parametrize("name", PEAKS)
def test_peaks(name):
    golden = torch.from_numpy(np.load(GOLDEN / "peaks.npz")[name])
    image = image_of(PEAKS[name].split())
    result = compare(golden, image, peaks=50, radius=0.5)
    assert result.matched >= 49
    assert result.relative_difference <= LARGEST_ERROR
    if name == "simple_cubic_1024":
        assert distinct_values(golden) == 66
        assert distinct_values(image) <= 80
