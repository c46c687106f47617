"""A background is added to the mean, by pixel or by scattering angle, and is differentiable."""

import math

import pytest
import torch

from sem.cli import main
from sem.diffraction import (
    Background,
    Beam,
    Crystal,
    Detector,
    Panels,
    Reflections,
    Simulator,
    experiment_from,
    images,
    write_field,
)
from sem.diffraction.background import scattering_angles

FLAGS = "-cell 100 100 100 90 90 90 -default_F 100 -distance 100 -lambda 6.2 -N 5 -detpixels 24 -fluence 1e26"
SPOT = FLAGS.split()
PROFILE = ((0.01, 3.0), (0.0, 9.0), (0.025, 5.0))  # in any order


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detector(**more):
    return Detector((20, 24), 0.5, 100.0, rotation=(3, -2, 5), two_theta=2, **more)


def simulator(background, where=None, **more):
    crystal = Crystal((70, 80, 90, 75, 85, 95), cells=(5, 5, 5), misset=(-90, -31, 178))
    return Simulator(
        crystal, Beam(1.1, fluence=1e26), where or detector(), Reflections(100.0), background=background, **more
    )


def two_theta_by_hand(frame, row, column):
    point = frame.origin + (row + 0.5) * frame.pixel_size * frame.slow + (column + 0.5) * frame.pixel_size * frame.fast
    return math.acos(float(point[0] / point.norm()))  # the beam runs along x


def test_a_profile_is_read_off_at_each_pixels_angle():
    where, wavelength = detector(), torch.tensor(1.3, dtype=torch.float64)
    frame = where()
    assert float(scattering_angles(where)[5, 17]) == pytest.approx(two_theta_by_hand(frame, 5, 17), abs=1e-9)
    for axis, factor in (("stol", 1.0), ("q", 4 * math.pi)):
        values = Background(profile=[(x * factor, y) for x, y in PROFILE], axis=axis, scale=2.0)(where, wavelength)
        seen = set()
        for row, column in ((0, 0), (5, 17), (12, 10), (23, 19), (14, 2)):
            stol = math.sin(two_theta_by_hand(frame, row, column) / 2) / 1.3
            seen.add((stol > 0.01) + (stol > 0.025))
            by_hand = 9 - 600 * stol if stol < 0.01 else 3 + 2 / 0.015 * (min(stol, 0.025) - 0.01)
            assert float(values[row, column]) == pytest.approx(2 * by_hand, rel=1e-9)
        assert seen == {0, 1, 2}
    degrees = Background(profile=[(0.0, 0.0), (90.0, 90.0)], axis="two_theta")(where, wavelength)
    torch.testing.assert_close(degrees * math.pi / 180, scattering_angles(where))


def test_a_curved_detector_has_its_own_angles():
    flat, curved = (Detector((9, 9), 10.0, 100.0, beam_center=(40.0, 40.0), curved=bent) for bent in (False, True))
    assert float(scattering_angles(curved)[4, 4]) == pytest.approx(0, abs=1e-12)
    # 40 mm along the arc from the middle of 9 pixels, which the beam meets
    assert float(scattering_angles(curved)[4, 8]) == pytest.approx(0.4, rel=1e-6)
    assert float(scattering_angles(curved)[1, 8]) == pytest.approx(math.acos(math.cos(0.3) * math.cos(0.4)), rel=1e-6)
    assert float(scattering_angles(flat)[4, 8]) == pytest.approx(math.atan(0.4), rel=1e-6)


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("physics", ["nanobragg", "exact"])
def test_it_is_added_where_pixels_are_computed(reference, physics):
    photons = torch.rand(24, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    region = (2, 17, 3, 20)
    plain = simulator(None, physics=physics, region=region, water=0.1)(reference=reference)
    with_it = simulator(Background(photons, scale=50.0), physics=physics, region=region, water=0.1)
    expected = torch.where(with_it.computed(), plain + (50 * photons).to(plain), 0.0)
    assert torch.equal(with_it(reference=reference), expected) and with_it(reference=reference).dtype == plain.dtype
    assert not bool(expected[0].any())
    difference = with_it.serial() - simulator(None, physics=physics, region=region, water=0.1).serial()
    torch.testing.assert_close(difference[3:21, 2:18], 50 * photons[3:21, 2:18])


@pytest.mark.parametrize("axis", ["q", "two_theta", "stol"])
def test_gradients_of_a_profile(axis):
    unit = {"q": 4 * math.pi, "stol": 1.0, "two_theta": 125.0}[axis]
    made = simulator(Background(profile=[(x * unit, y) for x, y in PROFILE], axis=axis, scale=1.5))
    names = ["background.scale", "background.values", "detector.distance", "detector.rotation", "beam.wavelength"]
    if axis == "two_theta":
        names.remove("beam.wavelength")
    weights = torch.rand(24, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    asked = made.refine(*names)

    def value(background, detector, wavelength):
        return (background(detector, wavelength) * weights).sum()

    gradients = torch.autograd.grad(value(made.background, made.detector, made.beam.wavelength), asked)
    for name, parameter, gradient in zip(names, asked, gradients, strict=True):
        along = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        slopes = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-5 * along
                slopes.append(value(made.background, made.detector, made.beam.wavelength))
                parameter -= sign * 1e-5 * along
        slope = float(slopes[0] - slopes[1]) / 2e-5
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=2e-5), name


def test_gradients_through_the_kernels_image():
    made = simulator(Background(torch.full((24, 20), 7.0), scale=2.0))
    scale, image = made.refine("background.scale", "background.image")
    made().double().sum().backward()
    assert float(scale.grad) == pytest.approx(7 * 480) and torch.equal(image.grad, torch.full_like(image, 2.0))
    at_the_spot = Detector((1, 1), 0.1, 100.0, beam_center=(0.0, 0.0))
    (distance,) = (parameter.requires_grad_() for parameter in (at_the_spot.distance,))
    scattering_angles(at_the_spot).sum().backward()
    assert float(distance.grad) == 0


def test_panels_share_a_profile_or_have_an_image_each():
    sides = [detector(), detector(pivot="beam")]
    parts = Crystal((70, 80, 90, 90, 90, 90)), Beam(1.1, fluence=1e26)
    shared = Panels(*parts, sides, Reflections(100.0), background=Background(profile=PROFILE))
    (scale,) = shared.refine("background.scale")
    shared().sum().backward()
    once = sum(float(shared.background(side, shared.beam.wavelength).detach().sum()) for side in sides)
    assert float(scale.grad) == pytest.approx(once)
    each = [Background(torch.full((24, 20), value)) for value in (1.0, 3.0)]
    images_of_each = Panels(*parts, sides, Reflections(100.0), background=each).images()
    plain = Panels(*parts, sides, Reflections(100.0)).images()
    for number, value in enumerate((1.0, 3.0)):
        assert torch.equal(images_of_each[number], plain[number] + value)
    with pytest.raises(ValueError, match="background image: expected 16 x 24 pixels, slow and fast"):
        Simulator(Crystal((70, 80, 90, 90, 90, 90)), Beam(), Detector((24, 16), 0.1, 80.0), Reflections(1.0),
                  background=Background(torch.ones(24, 16)))  # fmt: skip
    with pytest.raises(ValueError, match="background: expected one for each of 2 panels, got 1"):
        Panels(*parts, sides, Reflections(100.0), background=each[:1])


def simulate(*flags):
    return main(["diffraction", "simulate", *SPOT, *flags])


def test_the_command_line(capsys):
    photons = torch.full((24, 24), 30.0)
    photons[3, 4] = 90
    write_field("b.tif", [photons])
    plain = experiment_from(SPOT).simulator().detach()
    assert simulate("-background_image", "b.tif", "-background_scale", "0.5", "-floatfile", "f.bin", "-nopgm",
                    "-noisefile", "n.img") == 0  # fmt: skip
    image = images.read_float("f.bin")
    assert torch.equal(image, plain + 0.5 * photons)
    assert torch.equal((images.read_smv("n.img")[0] - 40).long(), images.poisson(image, 1))
    with open("p.txt", "w") as file:
        file.write("# q photons\n0 10\n0.1 4 # the last one\n")
    made = experiment_from([*SPOT, "-background_profile", "p.txt"]).simulator
    torch.testing.assert_close(made() - plain, made.background(made.detector, made.beam.wavelength).float())
    assert simulate("-background_profile", "p.txt", "-background_axis", "stol", "-show_config") == 0
    assert "profile over stol, scale 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("-background_image b.tif -background_profile p.txt", "background: expected -background_image or -background_"),
        ("-background_scale 2", "-background_scale: expected -background_image or -background_profile, got neither"),
        ("-background_image b.tif -background_axis q", "-background_axis: expected -background_profile to go with it"),
        ("-background_image b.tif", "background image: expected 24 x 24 pixels, slow and fast, as the det"),
        ("-background_profile p.txt -background_axis d", "p.txt: background axis: expected one of q, two_theta, stol"),
        ("-background_profile one.txt", "one.txt: background profile: expected two or more pairs, got shape [1, 2]"),
        ("-background_profile two.txt", "two.txt: background profile: expected one value at each q, got two at one"),
        ("-background_profile bad.txt", "bad.txt, line 1: expected 2 or more finite numbers, x photons, got '1 x'"),
        ("-background_profile minus.txt", "minus.txt: background profile: expected finite numbers >= 0, got others"),
        ("-background_profile p.txt -background_scale -1", "p.txt: background scale: expected a number >= 0, got -1"),
        ("-background_profile none.txt", "none.txt: cannot be read"),
        ("-background_image none.tif", "none.tif: cannot be read"),
        ("-background_image minus.tif", "minus.tif: background image: expected finite numbers >= 0, got others"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_sentence(flags, complaint, capsys):
    write_field("b.tif", [torch.ones(3, 4)])
    write_field("minus.tif", [-torch.ones(24, 24) * 2])
    for name, text in (
        ("p", "0 10\n1 4"), ("one", "1 2"), ("two", "1 2\n1 3\n2 4"), ("bad", "1 x"), ("minus", "0 1\n1 -3"),
    ):  # fmt: skip
        with open(f"{name}.txt", "w") as file:
            file.write(text)
    assert simulate(*flags.split(), "-floatfile", "f.bin") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"sem: {complaint}") and told.count("\n") == 1
