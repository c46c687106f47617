"""The command line's flags: the C program's spellings, and a sentence for everything that is wrong."""

import re
from pathlib import Path

import pytest
import torch

from sem.diffraction import experiment_from, images
from sem.diffraction.detector_flags import detector_from
from sem.diffraction.file_settings import settings_of_files
from sem.diffraction.flags import BY_NAME, COVERED, FLAGS, IGNORED, parse

CELL = "-cell 70 80 90 75 85 95"
BASE = f"{CELL} -default_F 100 -detpixels 16"


def simulator(flags):
    return experiment_from(f"{BASE} {flags}".split()).simulator


def test_no_spelling_has_two_meanings():
    assert len(BY_NAME) == sum(len(flag.names) for flag in FLAGS)


def test_every_covered_flag_sets_a_name_that_the_experiment_reads():
    source = "".join(
        Path(read.__code__.co_filename).read_text() for read in (experiment_from, detector_from, settings_of_files)
    )
    literals = re.findall(r'"([\w{}]+)"', source)
    read = [re.compile(re.sub(r"{\w+}", r"\\w+", literal)) for literal in literals]
    settings = {name for flag in FLAGS if flag.status == COVERED for name in (*flag.sets, *flag.also, flag.first)}
    covered = {name for name in settings if name and not name.startswith("vector_")}
    assert {name for name in covered if not any(pattern.fullmatch(name) for pattern in read)} == set()


@pytest.mark.parametrize(
    "flag", [flag for flag in FLAGS if flag.sets and flag.sets[0].startswith("vector_")], ids=lambda flag: flag.name
)
def test_vectors_become_the_custom_conventions_directions(flag):
    direction = flag.sets[0].removeprefix("vector_")
    given = [-1.0, 0.0, 0.0] if direction == "normal" else [0.1, 0.2, -2.0]  # a normal that is not 1 long is left out
    made = simulator(" ".join([flag.name, *map(str, given)])).detector
    assert made.convention.name == "CUSTOM"
    expected = torch.tensor(given, dtype=torch.float64)
    if direction != "two_theta":  # whose length the C program keeps
        expected = expected / expected.norm()
    torch.testing.assert_close(getattr(made.axes, direction).detach(), expected)


@pytest.mark.parametrize(
    ("flags", "attribute", "expected"),
    [
        ("-energy 12398.42", "beam.wavelength", 1.0),
        ("-wave 1.5", "beam.wavelength", 1.5),
        ("-N 5 -Nb 7", "crystal.cells", [5, 7, 5]),
        ("-Nb 7 -N 5", "crystal.cells", [5, 5, 5]),
        ("-lambda 2 -energy 12398.42", "beam.wavelength", 1.0),
        ("-energy 12398.42 -lambda 2", "beam.wavelength", 2.0),
        ("-samplesize 7e-6", "crystal.cells", [1, 1, 1]),  # one edge of a to the last digit
        ("-samplesize 1", "crystal.cells", [142858, 12500, 11112]),  # the default beam is 0.1 mm wide
        ("-detpixels 8 -detpixels_f 9", "detector.fast_pixels", 9),
        ("-detpixels_f 9 -detpixels 8", "detector.fast_pixels", 8),
        ("-xds -Xbeam 1 -Yclose 0.5", "detector.near_point", [0.8, 0.8]),
        ("-xds -Xbeam 1 -Yclose 0.5 -physics exact", "detector.near_point", [1, 0.5]),
        ("-spindle_axis 0 0 1 -Xclose 1 -ORGX 3 -ORGY 3", "detector.near_point", [1, 0.25]),
        ("-spindle_axis 0 0 1 -Xclose 1", "detector.near_point", [1, 0.8]),
        ("-spindle_axis 0 0 1 -distance 50 -Xclose 1", "detector.pivot", "sample"),
        ("-spindle_axis 0 0 1 -Xclose 1 -distance 50", "detector.pivot", "beam"),
        ("-spindle_axis 0 0 1 -twotheta 3 -pivot beam", "detector.pivot", "beam"),
        ("-spindle_axis 0 0 1 -pivot beam -ORGY 3", "detector.pivot", "sample"),
        ("-twotheta 3 -mosflm -spindle_axis 0 0 1", "detector.pivot", "beam"),
        ("-distance 50 -xds -spindle_axis 0 0 1", "detector.pivot", "sample"),
        ("-ORGX 3 -dials -spindle_axis 0 0 1", "detector.pivot", "beam"),
        ("-twotheta 5 -twotheta_axis 3 4 0", "detector.two_theta", 3),
        ("-fdet_vector 0 1 0 -xds", "detector.convention.name", "XDS"),
        ("-xds -fdet_vector 0 1 0", "detector.convention.slow", [0, -1, 0]),
        ("-fdet_vector 0 1 0 -sdet_vector 1 0 0", "detector.convention.normal", [1, 0, 0]),
        ("-fdet_vector 0 1 0 -sdet_vector 0 0 -1 -odet_vector 2 0 0", "detector.convention.normal", [-1, 0, 0]),
        ("-phistep 0.3 -phisteps 5", "crystal.phi_steps", 2),
        ("-osc 1 -phistep 0.3 -phisteps 5", "crystal.phi_step", 0.3),
        ("-osc -1", "crystal.phi_steps", 1),
        ("-detector_thick 200", "detector.attenuation_depth", 200.0),
        ("-detector_thick 200", "detector.layer_step", 100.0),
        ("-detector_thicksteps 3", "detector.layers", 1),
        ("-detector_thick 50 -thicksteps 1", "detector.layer_step", 50.0),
        ("-detector_thick 50 -detector_abs inf", "detector.thickness", 0.0),
        ("-phisteps 4", "crystal.oscillation", 1.0),
        ("-phisteps 0", "crystal.phi_steps", 1),
        ("-hdivsteps 4", "beam.divergence", [1000, 0]),
        ("-dispsteps 3", "beam.dispersion", 0.0),
        ("-nopolar -polar 0.5", "beam.polarised", True),
        ("-detector_absorb 50 -detector_thick 100 -thicksteps 3", "detector.layer_step", 50.0),
        ("-flux 0", "beam.fluence", 1.25932015286227e29),
        ("-N 0", "crystal.cells", [1, 1, 1]),
        ("-samplesize 0.0001 -xtal_y 0.00005", "crystal.cells", [15, 7, 12]),
        ("-samplesize 0.0001 -beamsize 0.00005", "crystal.cells", [15, 7, 6]),
        ("-misset 1 2 3", "crystal.misset", [1, 2, 3]),
        ("-mosaic 0.5", "crystal.mosaic_domains", 10),
        ("-mosaic_spread 0.5 -mosaic_dom 3", "crystal.mosaic_domains", 3),
        ("-tophat_spots", "crystal.shape", "tophat"),
        ("-round_xtal -square_xtal", "crystal.shape", "square"),
        ("-detpixels_f 20 -detsize_s 1", "detector.fast_pixels", 20),
        ("-ORGX 5 -ORGY 6 -xds", "detector.near_point", [0.45, 0.55]),
        ("-Xbeam 1", "detector.beam_center", [1, 0.85]),
        ("-detector_rotx 1 -detector_rotz 2", "detector.rotation", [1, 0, 2]),
        ("-fdet_vector 0 0 2", "detector.convention.name", "CUSTOM"),
        ("-adxv", "detector.convention.name", "ADXV"),
        ("-oversample 3", "detector.oversample", 3),
        ("-detector_abs 50 -detector_thick 100", "detector.layers", 2),
        ("-detector_abs inf", "detector.attenuation_depth", None),
        ("-detector_abs 0", "detector.attenuation_depth", None),
        ("-polarization 0.9", "beam.polarisation", 0.9),
        ("-nopolar", "beam.polarised", False),
        ("-flux 1e12 -exposure 2 -beamsize 0.01", "beam.fluence", 2e22),
        ("-hdivrange 1 -vdivrange 2 -divsteps 3", "beam.divergence", [1, 2]),
        ("-dispersion 2 -dispsteps 5", "beam.dispersion", 0.02),
        ("-roi 1 3 2 5", "region", (1, 3, 2, 5)),
        ("-dmin 2", "d_min", 2.0),
        ("-physics exact", "physics", "exact"),
    ],
)
def test_what_a_flag_sets(flags, attribute, expected):
    found = simulator(flags)
    for name in attribute.split("."):
        found = getattr(found, name)
    if isinstance(found, torch.Tensor):
        found = found.tolist()
    assert found == (pytest.approx(expected) if isinstance(expected, (float, list)) else expected)


def test_the_default_centre_is_that_of_the_size_given():
    flags = f"{CELL} -default_F 100 -detsize 1.64 -adxv".split()  # 16.4 pixels
    detector = experiment_from(flags).simulator.detector
    assert detector.fast_pixels == 16 and detector.beam_center.tolist() == pytest.approx([0.87, 0.77])
    assert detector.convention.fast_slow(detector.beam_center, 0.1, detector.size[1]).tolist() == pytest.approx(
        [0.87, 0.87]
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("-fdet_vector 0 1 0 -sdet_vector 1 0 0", "-sdet_vector 1 0 0 -fdet_vector 0 1 0"),
        ("-Xbeam 1 -Ybeam 2 -adxv", "-adxv -Ybeam 2 -Xbeam 1"),
        ("-N 5 -phi 3 -osc 1", "-osc 1 -N 5 -phi 3"),
    ],
)
def test_flags_that_set_different_things_may_stand_in_any_order(first, second):
    one, two = (simulator(flags).serial() for flags in (first, second))
    assert torch.equal(one, two)


def test_random_orientations_come_from_their_seed():
    def misset(flags):
        return simulator(flags).crystal.misset.tolist()

    assert misset("-misset random -misset_seed 3") == misset("-misset rand -misset_seed 3 -N 2")
    assert misset("-misset random -misset_seed 3") != misset("-misset random -misset_seed 4")


def test_capital_conventions_do_nothing_as_in_the_c_program():
    experiment = experiment_from(f"{BASE} -XDS".split())
    assert experiment.simulator.detector.convention.name == "MOSFLM"
    assert experiment.notes and "-XDS has no effect" in experiment.notes[0]


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ("-pivot sample", "-pivot has no effect"),
        ("-ORGX 3", "the nearest point has no effect: this"),
        ("-xds -ORGX 3 -Xbeam 1 -Ybeam 1", "-Xbeam, -Ybeam, -Xclose and -Yclose have no effect: XDS and DIALS"),
        ("-pix0_vector 0 0 1 -ORGX 3 -Xbeam 1 -Ybeam 1", "the nearest point has no effect: the beam centre"),
        ("-hdivsteps 3", "-hdivsteps without a range or a step spans a whole radian"),
        ("-density 1.2 -coherent", "-density has no effect: nanoBragg reads it and does not use it"),
        ("-beam_vector 0 0 1 -xds", "explicit vectors have no effect"),
        ("-pix0_vector_mm 1 2 3", "-pix0_vector has no effect but"),
        ("-interpolate", "-interpolate has no effect"),
        ("-osc -3", "-osc and -phistep below 0"),
        ("-detector_thicksteps 3", "-detector_thicksteps has no effect"),
        ("-mosaic_domains 5", "-mosaic_domains has no effect"),
        ("-floatfile a.bin -gain 2", "-gain and -readout_noise have no effect"),
        ("-printout -stol some.file", "-printout has no effect"),
    ],
)
def test_flags_without_effect_are_noted(flags, note):
    assert any(text.startswith(note) for text in experiment_from(f"{BASE} {flags}".split()).notes)


def test_a_centre_that_a_header_gives_makes_a_nearest_point_idle(tmp_path):
    path = tmp_path / "centre.img"
    header = {"PIXEL_SIZE": "0.1", "BEAM_CENTER_X": "1", "BEAM_CENTER_Y": "1"}
    images.write_smv(path, torch.ones(8, 8, dtype=torch.int32), header)
    notes = experiment_from(f"{BASE} -img {path} -pix0_vector 0 0 1 -ORGX 3".split()).notes
    assert any(text.startswith("the nearest point has no effect: the beam centre") for text in notes)


def test_ignored_flags_take_their_values_along():
    values, notes = parse(["-printout_pixel", "3", "4", "-lambda", "2"])
    assert values == {"wavelength": 2.0} and len(notes) == 1
    assert all(flag.sets == () for flag in FLAGS if flag.status == IGNORED)


def test_mask(tmp_path):
    mask = torch.ones(16, 16, dtype=torch.int32)
    mask[3:5, 2:9] = 0
    images.write_smv(tmp_path / "mask.img", mask)
    image = simulator(f"-mask {tmp_path / 'mask.img'}")(reference=True)
    assert ((image > 0) == (mask > 0)).all()


def test_a_mask_of_another_size_is_named(tmp_path):
    images.write_smv(tmp_path / "mask.img", torch.ones(16, 16, dtype=torch.int32))
    with pytest.raises(
        ValueError, match=r"mask\.img: expected a mask of 16 x 20 pixels as the detector has, got 16 x 16"
    ):
        simulator(f"-mask {tmp_path / 'mask.img'} -detpixels_f 20")


def test_region():
    image = simulator("-roi 2 4 3 8")(reference=True)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[3:9, 2:5] = True
    assert ((image > 0) == inside).all()
    assert torch.equal(image[inside], simulator("")(reference=True)[inside])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("-lamda 1", "-lamda: unknown flag; did you mean -lambda?"),
        ("-detpixel 4", "-detpixel: unknown flag; did you mean -detpixels?"),
        ("-mosaic_domians 4", "-mosaic_domians: unknown flag; did you mean -mosaic_domains?"),
        ("-CELL 1", "-CELL: unknown flag; did you mean -cell?"),
        ("-zzz", "-zzz: unknown flag; sem diffraction simulate -help lists the known ones"),
        ("5", "5: expected a flag such as -cell, got a value that belongs to none"),
        ("-lambda", "-lambda: expected 1 number (Å): central wavelength; got none"),
        ("-lambda x", "-lambda: expected 1 number (Å): central wavelength; got x"),
        ("-cell 1 2 3", "-cell: expected 6 numbers (Å, degrees): a b c alpha beta gamma; got 1 2 3"),
        ("-N 2.5", "-N: expected 1 whole number: unit cells along a, b and c; got 2.5"),
        ("-oversample_omega", "-oversample_omega: not covered (every step its own solid angle: -physics exact"),
        ("-cell 0 80 90 75 85 95", "cell a: expected a length > 0 in Å, got 0"),
        ("-cell 70 80 90 75 85 195", "cell gamma: expected an angle between 0 and 180 degrees, got 195"),
        (
            "-cell 70 80 90 30 40 95",
            "cell angles: expected a sum below 360 degrees and no angle as large as the other two together, "
            "got 30, 40, 95",
        ),
        ("-N -3", "Na: expected a number >= 0, got -3"),
        ("-lambda -1", "wavelength: expected a number > 0 in Å, got -1"),
        ("-energy 0", "energy: expected a number > 0 in eV, got 0"),
        ("-distance -5", "distance: expected a number > 0 in mm, got -5"),
        ("-pixel 0", "pixel: expected a number > 0 in mm, got 0"),
        ("-detpixels 0", "detpixels: expected a whole number >= 1, got 0"),
        ("-detsize -3", "detsize: expected a number > 0 in mm, got -3"),
        ("-samplesize -1", "sample size along a: expected a number > 0 in mm, got -1"),
        ("-mosaic -1", "mosaic spread: expected a number >= 0 in degrees, got -1"),
        ("-polar 2", "polarisation: expected a Kahn factor from -1 to 1, got 2"),
        ("-water -1", "water: expected a number >= 0 in µm, got -1"),
        ("-default_F -1", "default_F: expected a number >= 0, got -1"),
        ("-default_F 0", "structure factors: expected -hkl with a file or -default_F above 0, got neither"),
        (
            "-roi 0 16 0 3",
            "region: expected fast and slow limits, first to last, inside 0 to 15 and 0 to 15, got 0 16 0 3",
        ),
        ("-roi 5 3 0 3", "region: expected fast and slow limits"),
        ("-physics exakt", "physics: expected one of nanobragg, exact, got 'exakt'"),
        ("-phi_carryover c", "phi_carryover: expected one of spec, c-parity, got 'c'"),
        ("-pivot edge", "pivot: expected one of beam, sample, got 'edge'"),
        ("-beam_vector 0 0 0", "beam: expected three numbers that are not all 0, got (0.0, 0.0, 0.0)"),
        (
            "-fdet_vector 1 0 0 -sdet_vector 2 0 0 -odet_vector 2 0 0",
            "fast and slow: expected two different directions",
        ),
        (
            "-odet_vector 0 1 0",
            "detector: expected a normal that is not perpendicular to the beam, got normal 0 1 0 and beam 1 0 0",
        ),
        ("-osc 1 -phistep 1e-9", "phi steps: expected at most 1000000, got 1000000000"),
        ("-hdivrange 1 -hdivstep 1e-7", "horizontal divergence steps: expected at most 1000000, got 10000000"),
        ("-divergence 1 -divsteps 2000", "points of the divergence: expected at most 1000000, got 4000000"),
        ("-mosaic 1 -mosaic_domains 2000000", "mosaic domains: expected at most 1000000, got 2000000"),
        ("-divsteps 1", "divergence: expected steps smaller than the ranges, got a grid without a point"),
        (
            "-polar_vector 1 0 0 -polar 0.5",
            "polarisation: expected a direction across the beam, got that of source 1 of 1",
        ),
        (
            "-detector_abs inf -detector_thick 90",
            "detector: expected an attenuation depth above 0 for a sensor of 90 µm, got one that absorbs nothing",
        ),
        (
            "-twotheta 17 -beam_vector -0.1 -0.03 -1 -detector_rotx 8.5 -distance 100",
            "detector: expected a normal that points away from the sample, got a plane at -",
        ),
        ("-oversample -2", "oversample: expected a whole number >= 1, got -2"),
        ("-osc 1 -phistep nan", "-osc and -phistep: expected 2 finite numbers, got 1 nan"),
        ("-hdivstep -2", "horizontal divergence step: expected a number >= 0, got -2"),
        ("-floatfile no/such/folder/a.bin", "no/such/folder/a.bin: expected a file in a folder that is there"),
        ("-hkl none.hkl", "none.hkl: cannot be read (No such file or directory)"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(flags, sentence):
    with pytest.raises(ValueError) as error:
        simulator(flags)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_a_crystal_is_needed():
    with pytest.raises(ValueError, match="crystal: expected -cell with six numbers or -mat with a matrix file"):
        experiment_from(["-default_F", "1"])
