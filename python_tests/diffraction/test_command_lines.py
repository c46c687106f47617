"""Command lines whose flags act on one another: the C program's images and its own trace of a pixel."""

import gzip
import json
import shlex

import numpy as np
import pytest
import torch
from golden_images import GOLDEN, LARGEST_ERROR

from sem.diffraction import experiment_from, images
from sem.diffraction.comparison import compare
from sem.diffraction.outputs import write_outputs
from sem.diffraction.smv_header import smv_header
from sem.diffraction.summary import summary

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


def test_counts_are_the_c_programs():
    image = torch.from_numpy(IMAGES["p20"]).reshape(64, 64)
    expected = torch.from_numpy(IMAGES["p20_smv"].astype(np.int32)).reshape(64, 64)
    assert torch.equal(images.counts(image)[0], expected)


def test_the_header_is_that_of_the_c_programs_image():
    written = images.read_smv(MORE / "cimgx.img")[1]
    cell = "-cell 60 70 80 90 90 90 -default_F 100 -N 5"
    flags = f"-xds -detpixels 64 -close_distance 110 -ORGX 20 -ORGY 40 -lambda 1.1 -twotheta 10 {cell}"
    header = smv_header(experiment_from(flags.split()).simulator)
    described = ("HEADER_BYTES", "DIM", "BYTE_ORDER", "TYPE", "SIZE1", "SIZE2")
    assert header == {name: value for name, value in written.items() if name not in described}
    assert list(header) == [name for name in written if name not in described]


def test_a_header_that_outgrows_512_bytes(tmp_path):
    flags = shlex.split((FOUNDING / "founding_flags.txt").read_text())
    header = smv_header(experiment_from(flags).simulator)
    raw = images.smv_header_bytes((2, 3), header)
    assert len(raw) == 1024 and raw.startswith(b"{\nHEADER_BYTES=1024;\n")
    counts = torch.arange(6, dtype=torch.int32).view(2, 3)
    images.write_smv(tmp_path / "a.img", counts, header)
    again, found = images.read_smv(tmp_path / "a.img")
    assert torch.equal(again, counts) and {name: found[name] for name in header} == header
    # what the C program printed of the same experiment
    assert found["DENZO_X_BEAM"] == "215.043" and found["DENZO_Y_BEAM"] == "217.889"
    assert found["DIALS_ORIGIN"] == "-230.192,216.343,216.476" and found["XDS_ORGX"] == "1266.44"


def test_the_summary_has_the_lines_that_the_c_program_printed():
    printed = [line.strip() for line in (FOUNDING / "c_trace_685_1039.log").read_text().splitlines()]
    lines = summary(experiment_from(shlex.split((FOUNDING / "founding_flags.txt").read_text())))
    ours = [line for line in lines if not line.startswith(("created a total", "sensor is"))]
    assert [line for line in ours if line not in printed] == []
    assert len(ours) == 9


def test_what_a_mask_leaves_out_has_the_offset_of_the_counts_and_what_is_outside_the_region_has_none(tmp_path):
    mask = torch.ones(16, 16, dtype=torch.int32)
    mask[5:8, 4:9] = 0
    images.write_smv(tmp_path / "mask.img", mask)
    flags = "-cell 60 70 80 90 90 90 -default_F 100 -lambda 1.5 -N 4 -distance 40 -roi 2 13 3 12 -adc 40 -pgmfile a.pgm"
    named = f"-mask {tmp_path / 'mask.img'} -intfile {tmp_path / 'a.img'} -noisefile {tmp_path / 'noise.img'}"
    experiment = experiment_from([*flags.replace("a.pgm", str(tmp_path / "a.pgm")).split(), *named.split()])
    with torch.no_grad():
        photons = experiment.simulator.photons()
    assert len(list(write_outputs(experiment, [photons], [photons]))) == 3
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[3:13, 2:14] = True
    for name in ("a.img", "noise.img"):
        counts = images.read_smv(tmp_path / name)[0]
        assert (counts[5:8, 4:9] == 40).all() and (counts[~inside] == 0).all()
    # the C program's measure of a picture: the mean of what is computed, the deviations of all that is in the region
    values = photons.double()[inside]
    deviations = values - values.sum() / (inside.sum() - 15)
    scale = 50 / (deviations.square().sum() / (inside.sum() - 1)).sqrt()
    assert f"scaled by {float(scale):g}".encode() in (tmp_path / "a.pgm").read_bytes()
