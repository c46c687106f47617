"""Beams of many wavelengths with weights, and structure factors that depend on the wavelength."""

import numpy as np
import pytest
import torch

from sem.cli import main
from sem.diffraction import (
    Beam,
    Crystal,
    Detector,
    Reflections,
    Simulator,
    experiment_from,
    images,
    open_reflections,
    write_mtz,
)
from sem.diffraction.refinement.model_file import Model

CELL = (70, 80, 90, 75, 85, 95)
SPECTRUM = ((1.12, 1.0), (1.08, 3.0), (1.1, 2.0))
FIRST = (-6, -6, -6)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(seed):
    generator = torch.Generator().manual_seed(seed)
    return 50 + 40 * torch.rand(13, 13, 13, dtype=torch.float64, generator=generator)


def simulator(beam, reflections, pixels=12, **more):
    crystal = Crystal(
        CELL, cells=(3, 4, 5), misset=(-90, -31, 178), oscillation=0.5, mosaic_spread=0.4, mosaic_domains=2
    )
    return Simulator(crystal, beam, Detector((pixels, pixels), 12.0 / pixels, 90.0), reflections, **more)


def single(wavelength, reflections, **more):
    return simulator(Beam(wavelength, polarisation=0.4), reflections, **more)


@pytest.mark.parametrize("physics", ["nanobragg", "exact"])
@pytest.mark.parametrize("between", ["linear", "nearest"])
def test_an_image_is_the_weighted_mean_of_its_wavelengths(physics, between):
    low, high = table(1), table(2)
    reflections = Reflections(20.0, torch.stack([high, low]), FIRST, wavelengths=(1.13, 1.08), between=between)
    made = simulator(Beam(spectrum=SPECTRUM, polarisation=0.4), reflections, physics=physics)
    tables = {1.08: low, 1.12: high, 1.1: low}
    if between == "linear":
        tables |= {1.12: 0.2 * low + 0.8 * high, 1.1: 0.6 * low + 0.4 * high}
    expected = (
        sum(
            weight * single(wavelength, Reflections(20.0, tables[wavelength], FIRST), physics=physics)(reference=True)
            for wavelength, weight in SPECTRUM
        )
        / 6
    )
    torch.testing.assert_close(made(reference=True), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(made(), expected.float(), rtol=1e-4, atol=1e-5 * float(expected.max()))
    torch.testing.assert_close(made.serial(), expected, rtol=1e-6, atol=1e-10 * float(expected.max()))
    assert float(made.beam.wavelength) == pytest.approx((1.12 + 3 * 1.08 + 2 * 1.1) / 6)


@pytest.mark.parametrize("physics", ["nanobragg", "exact"])
@pytest.mark.parametrize("interpolate", [False, True])
def test_equal_tables_give_what_one_table_gives_water_included(physics, interpolate):
    if physics == "nanobragg" and interpolate:
        physics = "exact"  # where interpolation ends for good at the first reflection out of range, calls differ
    same = table(1)
    more = {"physics": physics, "water": 20.0, "interpolate": interpolate}
    beam = Beam(spectrum=SPECTRUM, polarisation=0.4, divergence=(0.5, None), divergence_steps=(2, None))
    one = simulator(beam, Reflections(20.0, same, FIRST), **more)(reference=True)
    several = Reflections(20.0, torch.stack([same] * 3), FIRST, wavelengths=(1.0, 1.1, 1.2))
    torch.testing.assert_close(simulator(beam, several, **more)(reference=True), one, rtol=1e-10, atol=0)
    dry = simulator(beam, several, **{**more, "water": 0.0})(reference=True)
    assert float((one - dry).min()) > 1e-3 * float(one.max())


def test_weights_are_relative_and_every_direction_has_all_of_them():
    reflections = Reflections(100.0)
    doubled = [(wavelength, 2 * weight) for wavelength, weight in SPECTRUM]
    first, second = (simulator(Beam(spectrum=pairs), reflections)(reference=True) for pairs in (SPECTRUM, doubled))
    torch.testing.assert_close(first, second)
    even = simulator(Beam(1.1, dispersion=0.02, dispersion_steps=3), reflections)
    colours = (even.beam(even.detector.axes).wavelength * 1e10).tolist()
    flat = simulator(Beam(1.1, spectrum=[(colour, 7.0) for colour in colours]), reflections)
    torch.testing.assert_close(flat(reference=True), even(reference=True))
    sources = Beam(spectrum=SPECTRUM, divergence=(1.0, None))(even.detector.axes)
    assert len(sources.direction) == 6 and float(sources.weight.mean()) == pytest.approx(1)
    assert torch.equal(sources.direction[0], sources.direction[2])
    assert torch.equal(sources.weight, torch.tensor([0.5, 1.5, 1.0] * 2, dtype=torch.float64))
    assert torch.equal(sources.wavelength[:3], sources.wavelength[3:])


def derivative(made, name, along, weights, step):
    value = dict(made.named_parameters())[name].detach()
    above, below = (
        torch.func.functional_call(made, {name: value + sign * step * along}, kwargs={"reference": True})
        for sign in (1, -1)
    )
    return float(((above - below) * weights).sum().detach()) / (2 * step)


@pytest.mark.parametrize("between", ["linear", "nearest"])
def test_gradients_to_weights_wavelengths_and_every_table(between):
    tables = torch.stack([table(1), table(2)])
    reflections = Reflections(20.0, tables, FIRST, wavelengths=(1.07, 1.131), between=between)
    made = simulator(Beam(spectrum=SPECTRUM, polarisation=0.4), reflections, pixels=5)
    weights = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    names = ("beam.weights", "beam.wavelengths", "reflections.table", "reflections.default", "crystal.mosaic_spread")
    asked = made.refine(*names)
    gradients = torch.autograd.grad((made(reference=True) * weights).sum(), asked)
    native = torch.autograd.grad((made().double() * weights).sum(), asked)
    for name, parameter, gradient, other in zip(names, asked, gradients, native, strict=True):
        along = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        slope = derivative(made, name, along, weights, 1e-7 if name == "beam.wavelengths" else 1e-4)
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-5), name
        assert float((other - gradient).norm()) < 2e-4 * float(gradient.norm()), name
    assert all(bool((part != 0).any()) for part in gradients[names.index("reflections.table")])


def test_friedel_mates_differ_by_wavelength():
    """At one wavelength F(h) and F(-h) are alike, at the other they are not: the mates' spots tell."""
    even = torch.full((13, 13, 13), 60.0, dtype=torch.float64)
    odd = even.clone()
    odd[7:] += 30  # h > 0, whose mates stay at 60
    reflections = Reflections(0.0, torch.stack([even, odd]), FIRST, wavelengths=(1.0, 1.2))
    crystal = Crystal((70, 70, 70, 90, 90, 90), cells=(5, 5, 5))

    def mates(wavelength):
        pixels, pixel = 9, 0.2
        found = []
        for sign in (1, -1):  # the crystal turned by 180 degrees about x swaps the mates of (0 k l), about z those of h
            turned = Crystal((70, 70, 70, 90, 90, 90), cells=(5, 5, 5), misset=(0.0, 0.0, 90.0 * sign))
            where = Detector((pixels, pixels), pixel, 100.0, beam_center=(0.8 + 100 * wavelength / 70, 0.8))
            made = Simulator(turned, Beam(wavelength, polarised=False), where, reflections, physics="exact")
            found.append(float(made().max()))
        return found[0] / found[1]

    assert float(crystal.cells[0]) == 5
    assert mates(1.0) == pytest.approx(1, rel=0.02)
    assert max(mates(1.2), 1 / mates(1.2)) == pytest.approx((90 / 60) ** 2, rel=0.02)
    assert max(mates(1.1), 1 / mates(1.1)) == pytest.approx((75 / 60) ** 2, rel=0.02)
    assert max(mates(1.5), 1 / mates(1.5)) == pytest.approx((90 / 60) ** 2, rel=0.02)  # beyond the last: the last


FLAGS = "-cell 70 80 90 75 85 95 -misset -90 -31 178 -N 4 -detpixels 12 -pixel 1 -distance 90 -fluence 1e28"
BASE = FLAGS.split()


def simulate(*flags):
    return main(["diffraction", "simulate", *BASE, *flags])


def test_the_command_line(capsys):
    for number in (1, 2):
        whole = table(number).float().double()
        write_mtz(f"{number}.mtz", Reflections(0.0, whole, FIRST).listed(CELL))
        with open(f"{number}.hkl", "w") as file:
            for h, k, l in np.ndindex(12, 13, 13):  # noqa: E741 - its usual name; one h less than the other file
                file.write(f"{h - 6} {k - 6} {l - 6} {float(whole[h, k, l])!r}\n")
    column = next(iter(open_reflections("2.mtz").columns))
    with open("colours.txt", "w") as file:
        file.write("# wavelength file column\n1.12 2.mtz\n\n1.08 1.hkl # rows\n")
    with open("spectrum.txt", "w") as file:
        file.writelines(f"{wavelength} {weight}\n" for wavelength, weight in SPECTRUM)
    flags = ["-spectrum", "spectrum.txt", "-hkl_spectrum", "colours.txt", "-default_F", "9"]
    assert simulate(*flags, "-floatfile", "f.bin") == 0
    printed = capsys.readouterr().out
    assert "created a total of 3 sources" in printed
    made = experiment_from([*BASE, *flags]).simulator
    assert torch.equal(images.read_float("f.bin"), made())
    assert made.reflections.wavelengths.tolist() == [1.08, 1.12]
    assert torch.equal(made.reflections.table[1], table(2).float().double())
    assert torch.equal(made.reflections.table[0][:12], table(1).float().double()[:12])
    assert bool((made.reflections.table[0][12] == 9).all())  # which only the other file has
    assert float(made.beam.wavelength) == pytest.approx(6.56 / 6, rel=1e-9)
    nearest = experiment_from([*BASE, *flags, "-hkl_between", "nearest", "-lambda", "1.1"]).simulator
    assert nearest.reflections.between == "nearest" and float(nearest.beam.wavelength) == 1.1
    assert column


def test_a_model_of_a_refinement_follows_the_files_that_are_listed():
    with open("1.hkl", "w") as file:
        file.write("1 0 0 5\n0 1 0 6\n")
    with open("colours.txt", "w") as file:
        file.write("1.0 1.hkl\n")
    model = Model((*BASE, "-hkl_spectrum", "colours.txt"))
    before = model.digest()
    with open("1.hkl", "a") as file:
        file.write("1 1 0 7\n")
    assert model.digest() != before
    assert float(model.simulator().reflections.table[0, 1, 1, 0]) == 7


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("-spectrum s.txt -dispersion 1", "spectrum: expected neither sources nor a dispersion to go with it, got one"),
        ("-spectrum zero.txt", "spectrum: expected a weight above 0 in some pair, got only 0"),
        ("-spectrum minus.txt", "spectrum: expected finite wavelengths > 0 and weights >= 0, got others among them"),
        ("-spectrum one.txt", "one.txt, line 1: expected 2 or more finite numbers, a wavelength and a weight"),
        ("-hkl_spectrum one.txt", "one.txt, line 1: expected a wavelength in Å, a file, and at most its"),
        ("-hkl_spectrum empty.txt", "empty.txt: expected rows of a wavelength and a file, got none"),
        ("-hkl_spectrum twice.txt", "twice.txt: structure factors: expected a table for each wavelength, got two"),
        ("-hkl_spectrum column.txt", "a.hkl: expected MTZ or CIF to go with column 'F', got another file"),
        ("-hkl_spectrum twice.txt -hkl a.hkl", "structure factors: expected -hkl or -hkl_spectrum, one of the two"),
        ("-hkl_spectrum good.txt -hkl_column F", "-hkl_column: expected -hkl to go with it"),
        ("-hkl a.hkl -hkl_between nearest", "-hkl_between: expected -hkl_spectrum to go with it, got none"),
        ("-hkl_spectrum good.txt -hkl_between cubic", "good.txt: between wavelengths: expected one of linear, nearest"),
        ("-hkl_spectrum good.txt -spectrum s.txt -trace_pixel 2 2", "trace: expected one table of structure factors"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_sentence(flags, complaint, capsys):
    for name, text in (
        ("s.txt", "1 1\n1.1 2"), ("zero.txt", "1 0"), ("minus.txt", "1 -1"), ("one.txt", "1.1"),
        ("empty.txt", "# none"), ("twice.txt", "1 a.hkl\n1 a.hkl"), ("column.txt", "1 a.hkl F"), ("a.hkl", "1 0 0 5"),
        ("good.txt", "1 a.hkl\n1.2 a.hkl"),
    ):  # fmt: skip
        with open(name, "w") as file:
            file.write(text)
    default = () if "-hkl" in flags else ("-default_F", "10")
    assert simulate(*default, *flags.split(), "-floatfile", "f.bin") == 2
    told = capsys.readouterr().err
    assert told.removeprefix("sem: ").startswith(complaint) and told.count("\n") == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"expected 2 tables, one for each wavelength, \[E, H, K, L\], got \[3, 3,"):
        Reflections(0.0, torch.ones(3, 3, 3), wavelengths=(1.0, 1.1))
    with pytest.raises(ValueError, match=r"expected a table of three dimensions, got \[2, 3, 3, 3\]"):
        Reflections(0.0, torch.ones(2, 3, 3, 3))
    with pytest.raises(ValueError, match="expected a table for each of the wavelengths, got none"):
        Reflections(1.0, wavelengths=(1.0,))
    with pytest.raises(ValueError, match="expected one table, which a file holds, got one for each wavelength"):
        Reflections(0.0, torch.ones(1, 3, 3, 3), wavelengths=(1.0,)).listed(CELL)
    with pytest.raises(ValueError, match=r"spectrum: expected pairs of wavelength and weight, got shape \[2\]"):
        Beam(spectrum=(1.0, 2.0))
