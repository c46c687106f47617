"""Command lines whose flags act on one another: the C program's images and its own trace of a pixel."""

import gzip
import json
import shlex

import numpy as np
import pytest
import torch
from golden_images import GOLDEN, LARGEST_ERROR

from sem.diffraction import experiment_from
from sem.diffraction.comparison import compare

MORE, FOUNDING = GOLDEN / "more", GOLDEN / "founding"
CASES = {name: case["flags"].split() for name, case in json.loads((MORE / "cases.json").read_text()).items()}
IMAGES = np.load(MORE / "images.npz")
CARRIED = ["-phi_carryover", "c-parity"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with the files that the command lines name."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "files").mkdir()
    (folder / "files" / "full.hkl").write_bytes(gzip.decompress((MORE / "full.hkl.gz").read_bytes()))
    (folder / "files" / "cimgx.img").write_bytes((MORE / "cimgx.img").read_bytes())
    (folder / "f.hkl").write_bytes(gzip.decompress((FOUNDING / "f.hkl.gz").read_bytes()))
    (folder / "A.mat").write_bytes((FOUNDING / "A.mat").read_bytes())
    return folder


@pytest.fixture(autouse=True)
def here(inputs, monkeypatch):
    monkeypatch.chdir(inputs)


@pytest.mark.parametrize("reference", [False, True], ids=["kernel", "twin"])
@pytest.mark.parametrize("name", CASES)
def test_the_c_programs_image(name, reference):
    model = experiment_from([*CASES[name], *CARRIED]).simulator
    with torch.no_grad():
        image = model(reference=reference)
    golden = torch.from_numpy(IMAGES[name]).reshape(image.shape)
    result = compare(golden, image)
    assert result.relative_difference <= LARGEST_ERROR
    assert result.correlation >= 0.9999999


def test_the_founding_command_line():
    golden = torch.from_numpy(np.load(FOUNDING / "window.npz")["window"])
    flags = shlex.split((FOUNDING / "founding_flags.txt").read_text())
    experiment = experiment_from([*flags, *CARRIED, "-roi", "1019", "1059", "670", "700"])
    with torch.no_grad():
        image = experiment.simulator()[670:701, 1019:1060]
    assert compare(golden, image).relative_difference <= LARGEST_ERROR


def test_an_angle_of_0_in_the_middle_of_a_scan_is_carried_over():
    fresh, carried = (experiment_from([*CASES["p03"], *more]).simulator for more in ([], CARRIED))
    assert carried.crystal.carried_steps().tolist() == [0, 1, 1, 3]
    with torch.no_grad():
        difference = compare(torch.from_numpy(IMAGES["p03"]).reshape(64, 64), fresh()).relative_difference
    assert difference > 1e-2
