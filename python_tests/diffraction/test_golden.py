"""Every golden image of the C program, from the C program's own command line."""

import gzip
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from sem.diffraction import experiment_from
from sem.diffraction.comparison import compare, distinct_values

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())
IMAGES = np.load(GOLDEN / "cases.npz")
PEAKS = {
    "simple_cubic_1024": "-N 5 -lambda 6.2 -cell 100 100 100 90 90 90 -default_F 100 -distance 100 -pixel 0.1 "
    "-detpixels 1024",
    "triclinic_512": "-misset -89.968546 -31.328953 177.753396 -cell 70 80 90 75 85 95 -default_F 100 -N 5 "
    "-lambda 1.0 -detpixels 512",
}
PARITY = {"phi0_carryover": ["-phi_carryover", "c-parity"]}
LARGEST_ERROR, LEAST_CORRELATION = 2e-5, 0.9999999


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with the files that the command lines name."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "a.hkl").write_bytes(gzip.decompress((GOLDEN / "a.hkl.gz").read_bytes()))
    (folder / "src.txt").write_bytes((GOLDEN / "src.txt").read_bytes())
    return folder


def image_of(flags, *, reference=False):
    with torch.no_grad():
        return experiment_from(flags).simulator(reference=reference)


@pytest.fixture(params=[False, True], ids=["kernel", "twin"])
def reference(request):
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_the_c_programs_image(name, reference, inputs, monkeypatch):
    monkeypatch.chdir(inputs)
    image = image_of([*shlex.split(CASES[name])[1:], *PARITY.get(name, [])], reference=reference)
    golden = torch.from_numpy(IMAGES[name])
    if name == "phi0_carryover":  # what its first pixel starts from is the C program's uninitialised past
        image, golden = image.clone(), golden.clone()
        image[0, 0] = golden[0, 0] = 0.0
    result = compare(golden, image)
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
