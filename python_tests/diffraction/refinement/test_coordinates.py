"""Coordinates of a fit: bounds, ties, and what is refused."""

import pytest
import torch
from refinement_problems import FLAGS, simulator_at

from sem.diffraction import experiment_from
from sem.diffraction.refinement.coordinates import REFINABLE, SYSTEMS, Coordinates

TETRAGONAL = ("-cell", "70", "70", "90", "90", "90", "90", *FLAGS[7:])


@pytest.mark.parametrize("name", REFINABLE)
def test_values_and_slopes_of_every_kind(name):
    kind = REFINABLE[name]
    value = torch.tensor([0.3, 0.7], dtype=torch.float64)
    coordinate = kind.coordinate(value).requires_grad_()
    assert torch.allclose(kind.value(coordinate), value, rtol=1e-12)
    (expected,) = torch.autograd.grad(kind.value(coordinate).sum(), coordinate)
    assert torch.allclose(kind.slope(coordinate.detach()), expected, rtol=1e-12)
    far = kind.value(torch.tensor([-30.0, 30.0], dtype=torch.float64))
    assert bool((far >= kind.low).all() and (far <= kind.high).all())


def test_a_tied_cell_moves_as_one():
    simulator = simulator_at(flags=TETRAGONAL)
    coordinates = Coordinates(simulator, ["crystal.lengths"], "tetragonal")
    assert coordinates.labels == ["crystal.lengths[0,1]", "crystal.lengths[2]"]
    coordinates.set(coordinates.start + torch.tensor([0.01, 0.0], dtype=torch.float64))
    a, b, c = simulator.crystal.lengths.tolist()
    assert a == b > 70.5 and c == pytest.approx(90, abs=1e-12)
    simulator.crystal.lengths.grad = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    slopes = coordinates.slopes(coordinates.start)
    assert torch.equal(coordinates.gradient(coordinates.start), torch.tensor([3.0, 4.0], dtype=torch.float64) * slopes)


def test_vectors_of_a_matrix_file_are_set(tmp_path):
    (tmp_path / "a.mat").write_text("0.0125 0.003 0.001\n-0.002 0.0119 -0.0007\n0.0004 0.0005 0.0138\n")
    simulator = experiment_from(f"-mat {tmp_path}/a.mat -default_F 60 -lambda 1 -detpixels 24".split()).simulator
    before = simulator.crystal.reciprocal.detach().clone()
    coordinates = Coordinates(simulator, ["crystal.reciprocal"])
    coordinates.set(coordinates.start)
    assert torch.allclose(simulator.crystal.reciprocal, before, rtol=1e-12)


@pytest.mark.parametrize(
    ("names", "system", "restraints", "message"),
    [
        (["crystal.length"], "triclinic", {}, "refine: expected one of crystal.lengths"),
        (["crystal.lengths", "crystal.lengths"], "triclinic", {}, "once, got crystal.lengths twice"),
        (["crystal.reciprocal"], "triclinic", {}, "that this experiment has, got crystal.reciprocal"),
        (["crystal.angles"], "cubic", {}, "system leaves free, got crystal.angles"),
        (["crystal.lengths"], "cubic", {}, "expected equal numbers of crystal.lengths in the cubic one, got 70 80 90"),
        (["crystal.lengths"], "quasi", {}, "system: expected one of triclinic"),
        (["crystal.mosaic_spread"], "triclinic", {}, "crystal.mosaic_spread: expected to start from numbers above 0"),
        (["crystal.lengths"], "triclinic", {"crystal.misset": 1.0}, "restrain: expected a parameter that is refined"),
        (["crystal.lengths"], "triclinic", {"crystal.lengths": 0.0}, "restrain crystal.lengths: expected a number > 0"),
    ],
)
def test_what_cannot_be_refined_is_named(names, system, restraints, message):
    with pytest.raises(ValueError, match=message):
        Coordinates(simulator_at(), names, system, restraints)


def test_every_system_is_there():
    assert set(SYSTEMS) >= {"triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic"}
