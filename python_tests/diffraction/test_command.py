"""``sem diffraction simulate`` from the command line to the files."""

import re
import sys

import pytest
import torch

from sem.cli import main
from sem.diffraction import experiment_from, images
from sem.diffraction.flags import FLAGS

SPOT = "-cell 100 100 100 90 90 90 -default_F 100 -distance 100 -lambda 6.2 -N 5 -detpixels 24"
FLAGS_OF_A_SPOT = SPOT.split()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def simulate(*flags):
    return main(["diffraction", "simulate", *FLAGS_OF_A_SPOT, *flags])


def test_every_output(folder, capsys):
    outputs = ["-floatfile", "f.bin", "-intfile", "i.img", "-noisefile", "n.img", "-pgmfile", "p.pgm", "-seed", "7"]
    assert simulate(*outputs, "-reference") == 0
    printed = capsys.readouterr().out
    assert all(f"wrote {name}" in printed for name in ("f.bin", "i.img", "n.img", "p.pgm"))
    assert {path.name for path in folder.iterdir()} == {"f.bin", "i.img", "n.img", "p.pgm"}
    image = images.read_float("f.bin")
    expected = experiment_from(FLAGS_OF_A_SPOT).simulator.serial()
    assert torch.equal(image, expected.float())
    integers, header = images.read_smv("i.img")
    assert integers.max() == 55040 and header["WAVELENGTH"] == "6.2"
    noise = images.read_smv("n.img")[0] - 40
    assert torch.equal(noise.long(), images.poisson(expected, 7))
    assert images.read_pgm("p.pgm").max() > 100


def test_counts_are_0_outside_the_region(folder):
    assert simulate("-roi", "3", "8", "5", "20", "-intfile", "i.img", "-noisefile", "n.img") == 0
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[5:21, 3:9] = True
    for name in ("i.img", "n.img"):
        counts = images.read_smv(name)[0]
        assert torch.equal(counts > 0, inside) and counts[inside].min() >= 40


def test_what_a_user_of_the_c_program_looks_for(capsys):
    turned = ["-misset", "random", "-misset_seed", "4"]
    assert simulate(*turned, "-osc", "1", "-phisteps", "3", "-floatfile", "f.bin") == 0
    printed = capsys.readouterr().out
    misset = experiment_from([*FLAGS_OF_A_SPOT, *turned]).simulator.crystal.misset
    assert "random orientation misset angles: " + " ".join(f"{angle:f}" for angle in misset.tolist()) in printed
    for line in (
        "Unit Cell: 100 100 100 90 90 90",
        "volume = 1e+06 A^3",
        "parallelpiped xtal: 5x5x5 cells",
        "created a total of 1 sources",
        "incident fluence: 1.25932e+29 photons/m^2",
        "3 phi steps from 0 to 1 degrees",
    ):
        assert f"{line}\n" in printed


def test_the_kernel_is_the_default(folder):
    assert simulate("-floatfile", "f.bin") == 0
    expected = experiment_from(FLAGS_OF_A_SPOT).simulator()
    assert torch.equal(images.read_float("f.bin"), expected)


@pytest.mark.parametrize("more", [(), ("-osc", "1", "-phisteps", "3", "-mosaic", "0.5", "-roi", "2", "20", "3", "22")])
def test_the_reference_traces_the_pixel_that_it_writes(more, capsys):
    assert simulate("-reference", "-trace_pixel", "11", "9", "-floatfile", "f.bin", *more) == 0
    printed = capsys.readouterr().out
    (value,) = re.findall(r"^TRACE: I_pixel_final = (\S+)$", printed, re.MULTILINE)
    image = experiment_from([*FLAGS_OF_A_SPOT, *more]).simulator.serial()
    assert float(value) == float(image[11, 9]) > 0
    assert torch.equal(images.read_float("f.bin"), image.float())


def test_without_outputs_the_c_programs_names(folder):
    assert simulate("-reference", "-nonoise") == 0
    assert {path.name for path in folder.iterdir()} == {"floatimage.bin", "intimage.img", "image.pgm"}


def test_show_config_prints_what_was_resolved_and_computes_nothing(folder, capsys):
    assert simulate("-show_config", "-osc", "1", "-floatfile", "f.bin") == 0
    printed = capsys.readouterr().out
    for text in ("MOSFLM", "0 0.5", "24 x 24 of 0.1 mm", "1 x 1", "spec", "nanobragg", "f.bin"):
        assert text in printed
    assert not list(folder.iterdir())


def test_help_lists_every_flag(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["diffraction", "simulate", "-help"]) == 0
    printed = capsys.readouterr().out
    assert all(flag.name in printed for flag in FLAGS)


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0), (["-help"], 0)])
def test_usage(arguments, status, capsys):
    assert main(["diffraction", *arguments]) == status
    captured = capsys.readouterr()
    text = captured.err if status else captured.out
    assert text.startswith("usage: sem diffraction SUBCOMMAND") and "\n  simulate " in text and "\n  compare " in text


def test_an_unknown_subcommand_is_named(capsys):
    assert main(["diffraction", "draw"]) == 2
    error = (
        "sem: sem diffraction draw: no such subcommand; expected one of simulate, compare, inspect, convert, refine\n"
    )
    assert capsys.readouterr().err == error


def test_help_of_compare_tells_of_the_c_program(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["diffraction", "compare", "--help"])
    assert ending.value.code == 0
    assert "sem diffraction compare --against-c PROGRAM [--evidence FOLDER] FLAGS" in capsys.readouterr().out


def test_errors_and_notes_go_to_stderr(capsys):
    assert simulate("-lamda", "1") == 2
    assert capsys.readouterr().err == "sem: -lamda: unknown flag; did you mean -lambda?\n"
    assert simulate("-XDS", "-reference", "-floatfile", "f.bin") == 0
    assert capsys.readouterr().err.startswith("sem: -XDS has no effect")


def test_a_write_that_fails_leaves_nothing(folder, capsys):
    if sys.platform == "win32":
        pytest.skip("needs a file in place of a folder")
    (folder / "f.bin").mkdir()
    assert simulate("-reference", "-floatfile", "f.bin") == 1
    assert {path.name for path in folder.iterdir()} == {"f.bin"}
    assert "f.bin" in capsys.readouterr().err
