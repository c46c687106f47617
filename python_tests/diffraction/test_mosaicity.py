"""Mosaic domains with a spread of their own about each of the crystal's axes."""

import pytest
import torch

from sem.cli import main
from sem.diffraction import Beam, Crystal, Detector, Reflections, Simulator, experiment_from, images
from sem.diffraction.rotations import by_vector

CELL = (70, 80, 90, 75, 85, 95)
SPINDLE = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
LIES = {"cells": (5, 5, 5), "misset": (20, -35, 60)}
FLAGS = "-cell 70 80 90 75 85 95 -default_F 100 -lambda 1.1 -N 5 -detpixels 16 -pixel 1 -distance 80"
SPOT = FLAGS.split()


def crystal(spread, domains=6, **more):
    return Crystal(CELL, **LIES, mosaic_spread=spread, mosaic_domains=domains, **more)


def rotations(made):
    """Of each domain against the first one at the first spindle angle, ``[domains, 3, 3]``: vectors as columns."""
    orientations = made(SPINDLE).detach()
    return torch.linalg.solve(orientations[0, 0], orientations[0]).mT


def turns_in_the_crystal(made):
    """Rotation vectors of small turns in the crystal's frame, degrees: read off the antisymmetric part."""
    real = made(SPINDLE).detach()[0, 0]
    x, z = real[0] / real[0].norm(), torch.linalg.cross(real[0], real[1])
    z = z / z.norm()
    frame = torch.stack([x, torch.linalg.cross(z, x), z])
    local = frame @ rotations(made) @ frame.T
    parts = (local - local.mT) / 2
    return torch.rad2deg(torch.stack([parts[:, 2, 1], parts[:, 0, 2], parts[:, 1, 0]], dim=1))


def test_equal_spreads_are_one_spread():
    one, three = crystal(0.7, domains=40), crystal((0.7, 0.7, 0.7), domains=40)
    torch.testing.assert_close(three(SPINDLE), one(SPINDLE), rtol=0, atol=1e-20)
    # at other spindle angles other domains, whose angles are those of the domains of one spread
    one, three = crystal(0.7, phi=50.0), crystal((0.7, 0.7, 0.7), phi=50.0)
    angles = [torch.einsum("dii->d", rotations(made)) for made in (one, three)]
    torch.testing.assert_close(*angles, rtol=0, atol=1e-12)
    assert float((rotations(one) - rotations(three)).abs().max()) > 1e-3


def test_each_axis_has_its_own_spread():
    widths = torch.tensor([0.9, 0.0, 0.3], dtype=torch.float64)
    turns = turns_in_the_crystal(crystal(widths.tolist(), domains=800))
    even = turns_in_the_crystal(crystal(0.9, domains=800))
    deviations, even_deviations = turns.square().mean(dim=0).sqrt(), even.square().mean(dim=0).sqrt()
    # the same draws, and so the same spread where it is the same
    torch.testing.assert_close(turns[:, 0], even[:, 0], rtol=1e-3, atol=1e-6)
    assert float(turns[:, 1].abs().max()) < 1e-4
    torch.testing.assert_close(deviations / even_deviations, widths / 0.9, rtol=1e-3, atol=1e-4)
    # even on the sphere: as wide about each axis
    assert float(even_deviations.max() / even_deviations.min()) < 1.1
    assert float((turns[:, 0] * turns[:, 2]).mean().abs()) < 0.1 * float(deviations[0] * deviations[2])


def test_domains_turn_with_the_spindle():
    made = crystal((0.8, 0.1, 0.4), oscillation=90.0, phi_steps=2)
    first, second = made(SPINDLE).detach()
    turned = torch.linalg.solve(first[0], second[0])
    torch.testing.assert_close(first @ turned, second, rtol=0, atol=1e-20)


@pytest.mark.parametrize("spread", [(0.8, 0.3, 0.5), (0.8, 0.0, 0.5), (0.0, 0.0, 0.0)])
def test_gradients_to_the_spreads(spread):
    made = crystal(spread, domains=4, phi=20.0, oscillation=1.0)
    # of an orientation with 2 spindle angles, in units of a cell's edge
    assert torch.autograd.gradcheck(
        lambda widths: torch.func.functional_call(made, {"mosaic_spread": widths}, (SPINDLE,)) * 1e9,
        torch.tensor(spread, dtype=torch.float64, requires_grad=True),
        atol=1e-9,
        rtol=1e-6,
    )
    simulator = Simulator(made, Beam(1.1, fluence=1e26), Detector((6, 6), 2.0, 80.0), Reflections(100.0))
    weights = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    names = ("crystal.mosaic_spread", "crystal.misset", "crystal.lengths")
    asked = simulator.refine(*names)
    gradients = torch.autograd.grad((simulator(reference=True) * weights).sum(), asked)
    native = torch.autograd.grad((simulator().double() * weights).sum(), asked)
    for name, parameter, gradient, other in zip(names, asked, gradients, native, strict=True):
        along = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        values = []
        for sign in (1, -1):
            moved = {name: parameter.detach() + sign * 1e-5 * along}
            image = torch.func.functional_call(simulator, moved, kwargs={"reference": True})
            values.append(float((image * weights).sum().detach()))
        assert float((gradient * along).sum()) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4), name
        assert float((other - gradient).norm()) < 2e-4 * float(gradient.norm()), name


def test_a_rotation_by_a_vector_is_smooth_at_0():
    vectors = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    turn = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(by_vector, (vectors, turn))
    assert torch.autograd.gradgradcheck(by_vector, (vectors, turn))
    for length in (0.9e-3, 1.1e-3):  # on either side of where the series begins
        small = torch.tensor([length, 0.0, 0.0], dtype=torch.float64)
        half = by_vector(by_vector(vectors, small / 2), small / 2)
        torch.testing.assert_close(by_vector(vectors, small), half, rtol=0, atol=1e-15)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [*SPOT, "-mosaic_widths", "0.8", "0.1", "0.4", "-mosaic_domains", "5"]
    assert main(["diffraction", "simulate", *flags, "-floatfile", "f.bin"]) == 0
    assert "5 mosaic domains over mosaic spread of 0.8 0.1 0.4 degrees" in capsys.readouterr().out
    simulator = experiment_from(flags).simulator
    assert torch.equal(images.read_float("f.bin"), simulator())
    assert simulator.crystal.mosaic_spread.tolist() == [0.8, 0.1, 0.4]
    assert experiment_from([*flags, "-mosaic", "0.2"]).simulator.crystal.mosaic_spread.shape == ()
    assert experiment_from([*SPOT, "-mosaic_widths", "0", "0", "1"]).simulator.crystal.mosaic_domains == 10
    assert main(["diffraction", "simulate", *SPOT, "-mosaic_widths", "0.8", "-1", "0.4"]) == 2
    assert capsys.readouterr().err == "sem: mosaic spread: expected a number >= 0 in degrees, got -1\n"
    with pytest.raises(ValueError, match="mosaic spread: expected one angle or three, got 2"):
        crystal((1.0, 2.0))
