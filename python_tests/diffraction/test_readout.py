"""Point spread, gain and readout noise: formulas, order, light that is kept, gradients, seeds."""

import itertools
import math

import numpy as np
import pytest
import torch

from sem.cli import main
from sem.diffraction import (
    Beam,
    Crystal,
    Detector,
    Panels,
    PointSpread,
    Readout,
    Reflections,
    Simulator,
    experiment_from,
    images,
)

FLAGS = "-cell 100 100 100 90 90 90 -default_F 100 -distance 100 -lambda 6.2 -N 5 -detpixels 24 -fluence 1e29"
SPOT = FLAGS.split()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spot(slow, fast, row, column):
    image = torch.zeros(slow, fast, dtype=torch.float64)
    image[row, column] = 1.0
    return image


def density(kind, width, r_squared):
    if kind == "gauss":
        variance = (width / 2.3548200450309493) ** 2
        return np.exp(-r_squared / (2 * variance)) / (2 * math.pi * variance)
    core = width / (2 * math.sqrt(2 ** (2 / 3) - 1))
    return core / (2 * math.pi) * (core**2 + r_squared) ** -1.5


@pytest.mark.parametrize("kind", ["gauss", "fiber"])
def test_light_of_a_point_is_its_density_integrated_over_pixels(kind):
    width = 0.34  # 1.7 pixels of 0.2 mm
    spread = PointSpread(kind, width)(spot(9, 12, 3, 7), 0.2)
    assert density(kind, width, (width / 2) ** 2) == pytest.approx(density(kind, width, 0) / 2)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    for row, column in itertools.product((0, 3, 4, 8), (0, 6, 7, 11)):
        y, x = ((at - center) * 0.2 + 0.1 * nodes for at, center in ((row, 3), (column, 7)))
        values = density(kind, width, y[:, None] ** 2 + x[None, :] ** 2)
        # a Gaussian further away than 6 standard deviations is left out
        by_hand = 0.01 * float(weights @ values @ weights)
        assert float(spread[row, column]) == pytest.approx(by_hand, rel=1e-9, abs=3e-9 if kind == "gauss" else 1e-15)


@pytest.mark.parametrize("kind", ["gauss", "fiber"])
def test_it_is_linear_and_symmetric_and_keeps_the_light(kind):
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, 17, 11, dtype=torch.float64, generator=generator)
    made = PointSpread(kind, 0.3)
    one, other = made(first, 0.1), made(second, 0.1)
    torch.testing.assert_close(made(2 * first - second, 0.1), 2 * one - other)
    assert float((one * second).sum()) == pytest.approx(float((first * other).sum()), rel=1e-12)
    assert float(one.sum()) < float(first.sum())
    middle = made(spot(401, 401, 200, 200), 0.1)
    # of the fibres' light the part in a square with sides of 2 L is (2/pi) asin(L² / (g² + L²))
    core = 3 / (2 * math.sqrt(2 ** (2 / 3) - 1))
    kept = 1.0 if kind == "gauss" else 2 / math.pi * math.asin(200.5**2 / (core**2 + 200.5**2))
    assert float(middle.sum()) == pytest.approx(kept, abs=1e-8)
    assert made(first.float(), 0.1).dtype == torch.float32
    narrow = PointSpread(kind, 1e-3)(first, 0.1)
    assert float((narrow - first).abs().max()) < (1e-12 if kind == "gauss" else 0.02)


@pytest.mark.parametrize("kind", ["gauss", "fiber"])
@pytest.mark.parametrize("pixel", [0.05, 0.4])
def test_gradients_to_image_and_width(kind, pixel):
    made = PointSpread(kind, 0.23)
    image = torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)

    def of(image, width):
        return torch.func.functional_call(made, {"width": width}, (image, pixel))

    width = torch.tensor(0.23, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(of, (image, width), eps=1e-5, atol=1e-8, rtol=1e-6)


def simulator(kind="gauss", **more):
    crystal = Crystal((70, 80, 90, 75, 85, 95), cells=(5, 5, 5), misset=(-90, -31, 178))
    return Simulator(
        crystal, Beam(1.1, fluence=1e27), Detector((20, 24), 0.5, 60.0), Reflections(100.0), water=0.1,
        point_spread=PointSpread(kind, 0.6), **more,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["gauss", "fiber"])
def test_expected_counts_have_gradients_through_the_spread(kind):
    made, readout = simulator(kind), Readout(gain=1.7, offset=0.5)
    names = ("crystal.misset", "crystal.lengths", "point_spread.width", "water")
    weights = torch.rand(24, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    asked = made.refine(*names)

    def value(reference):
        return (readout.expected(made(reference=reference)).double() * weights).sum()

    gradients = torch.autograd.grad(value(True), asked)
    native = torch.autograd.grad(value(False), asked)
    for name, parameter, gradient, other in zip(names, asked, gradients, native, strict=True):
        along = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        slopes = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-5 * along
                slopes.append(float(value(True)))
                parameter -= sign * 1e-5 * along
        slope = (slopes[0] - slopes[1]) / 2e-5
        assert float((gradient * along).sum()) == pytest.approx(slope, rel=1e-5), name
        assert float((other - gradient).norm()) < 1e-4 * float(gradient.norm()), name


def test_an_image_is_the_photons_spread_where_pixels_are_computed():
    made = simulator(region=(2, 17, 3, 20))
    photons = made.photons()
    spread = made.point_spread(photons, 0.5)
    assert torch.equal(made(), torch.where(made.computed(), spread, 0.0)) and float(spread[2].max()) > 0
    torch.testing.assert_close(made.serial().float(), made(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.serial(spread=False).float(), photons, rtol=1e-4, atol=1e-5)
    sides = [Detector((20, 24), 0.5, 60.0) for _ in range(2)]
    several = Panels(made.crystal, made.beam, sides, made.reflections, point_spread=made.point_spread)
    assert "point_spread.width" in dict(several.named_parameters())


def test_noise_is_drawn_before_the_spread_and_read_out_after_the_gain():
    photons = torch.full((60, 80), 50.0)
    spread = PointSpread("gauss", 0.25)
    drawn = Readout(gain=3.0, noise=4.0, offset=10).draw(photons, 5, lambda image: spread(image, 0.1))
    generator = torch.Generator().manual_seed(5)
    arrived = images.poisson(photons, generator).double()
    electronics = 4.0 * torch.randn(60, 80, dtype=torch.float64, generator=generator)
    by_hand = (spread(arrived, 0.1) * 3 + electronics + 10 + 0.5).floor().clamp(0, 65535)
    assert torch.equal(drawn.double(), by_hand) and drawn.dtype == torch.int32
    assert torch.equal(drawn, Readout(3.0, 4.0, 10).draw(photons, 5, lambda image: spread(image, 0.1)))
    assert not torch.equal(drawn, Readout(3.0, 4.0, 10).draw(photons, 6, lambda image: spread(image, 0.1)))
    # Poisson's variance through kernel and gain, the readout's, and that of rounding
    kernel = spread(spot(61, 61, 30, 30), 0.1)
    expected = 9 * 50 * float(kernel.square().sum()) + 16 + 1 / 12
    inside = drawn[5:-5, 5:-5].double()
    assert float(inside.var()) == pytest.approx(expected, rel=0.15)
    assert float(inside.mean()) == pytest.approx(160, abs=1.0)
    neighbours = inside - inside.mean()
    assert float((neighbours[:, 1:] * neighbours[:, :-1]).mean()) > 0.3 * expected
    plain = Readout().draw(photons, 5)
    assert torch.equal(plain, images.counts(images.poisson(photons, 5), 1.0)[0])
    masked = Readout(noise=4.0).draw(photons, 5, computed=torch.zeros(60, 80, dtype=torch.bool))
    assert not bool(masked.any())


def simulate(*flags):
    return main(["diffraction", "simulate", *SPOT, *flags])


def test_the_command_line(capsys):
    detector = ["-psf", "fiber", "-psf_fwhm", "0.15", "-gain", "1.5", "-readout_noise", "2", "-adc", "20", "-seed", "3"]
    assert simulate(*detector, "-floatfile", "f.bin", "-noisefile", "n.img", "-reference") == 0
    made = experiment_from([*SPOT, *detector]).simulator
    photons = experiment_from(SPOT).simulator.serial()
    spread = PointSpread("fiber", 0.15)
    assert torch.equal(images.read_float("f.bin"), spread(photons, 0.1).float())
    expected = Readout(1.5, 2.0, 20.0).draw(photons, 3, made.spread)
    assert torch.equal(images.read_smv("n.img")[0], expected) and 30 < int(expected.max()) < 60000
    assert simulate(*detector, "-show_config") == 0
    assert "fiber, fwhm 0.15 mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("-psf gauss", "-psf and -psf_fwhm: expected both, got -psf alone"),
        ("-psf_fwhm 0.1", "-psf and -psf_fwhm: expected both, got -psf_fwhm alone"),
        ("-psf moffat -psf_fwhm 0.1", "point spread: expected one of gauss, fiber, got 'moffat'"),
        ("-psf gauss -psf_fwhm 0", "point spread: width: expected a number > 0 in mm, got 0"),
        ("-gain 0", "gain: expected a number > 0 in counts per photon, got 0"),
        ("-readout_noise -1", "readout noise: expected a number >= 0 in counts, got -1"),
    ],
)
def test_what_is_wrong_is_a_sentence(flags, complaint, capsys):
    assert simulate(*flags.split(), "-floatfile", "f.bin") == 2
    assert capsys.readouterr().err == f"sem: {complaint}\n"
