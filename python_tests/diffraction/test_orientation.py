"""Turns and matrices there and back, and cells dual to their reciprocals, to 1e-12, for whatever there is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sem.diffraction import Crystal
from sem.diffraction.rotations import misset2umat, umat2misset

ANGLES = st.floats(-180, 180)
NEAR_THE_END = st.one_of(
    st.sampled_from([-90.0, 90.0]), st.floats(-1e-6, 1e-6).map(lambda x: 90 + x), st.floats(-90, 90)
)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def distance(one, other):
    return float((one - other).abs().max())


@given(ANGLES, NEAR_THE_END, ANGLES)
def test_turns_to_a_matrix_to_turns_to_the_matrix(x, y, z):
    matrix = misset2umat(tensor([x, y, z]))
    misset = umat2misset(matrix)
    assert distance(misset2umat(misset), matrix) < 1e-12
    assert -90 <= float(misset[1]) <= 90 and float(misset.abs().max()) <= 180
    assert distance(matrix @ matrix.mT, torch.eye(3)) < 1e-12


@given(ANGLES, st.sampled_from([-90.0, 90.0, 90 - 1e-9, 1e-7 - 90]), ANGLES, ANGLES)
def test_a_matrix_with_rounding_errors_is_turns_at_the_ends_too(x, y, z, other):
    there = misset2umat(tensor([other, 40.0, z]))
    matrix = there @ (there.mT @ misset2umat(tensor([x, y, z])))
    assert distance(misset2umat(umat2misset(matrix)), matrix) < 1e-12


@given(ANGLES, st.floats(-80, 80), ANGLES)
def test_turns_come_back_themselves_away_from_the_ends(x, y, z):
    back = umat2misset(misset2umat(tensor([x, y, z])))
    off = (back - tensor([x, y, z]) + 180) % 360 - 180
    assert float(off.abs().max()) < 1e-12 * 180


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_any_rotation_is_turns(quaternion):
    assume(np.linalg.norm(quaternion) > 1e-100)  # squares of smaller numbers lose their digits
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    generator = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = torch.from_numpy(np.eye(3) + 2 * w * generator + 2 * generator @ generator)
    assert distance(misset2umat(umat2misset(matrix)), matrix) < 1e-12


@given(ANGLES, ANGLES, ANGLES)
def test_the_matrix_turns_a_crystal_as_its_misset_does(x, y, z):
    cell = (50, 60, 70, 80, 95, 100)
    straight, turned = (Crystal(cell, misset=misset).vectors("exact")[1] for misset in ((0, 0, 0), (x, y, z)))
    assert distance(straight @ misset2umat(tensor([x, y, z])).mT, turned) < 1e-15


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [
        (torch.eye(3) * 1.01, "umat: expected a rotation, got"),
        (torch.diag(tensor([1.0, 1.0, -1.0])), "umat: expected a rotation, got one with a mirror"),
        (torch.zeros(2, 3), "umat: expected a rotation, got"),
        (torch.full((3, 3), math.nan), "umat: expected a rotation, got"),
    ],
)
def test_what_is_no_rotation_is_refused(matrix, complaint):
    with pytest.raises(ValueError, match=complaint):
        umat2misset(matrix)


CELLS = st.tuples(*[st.floats(3, 500)] * 3, *[st.floats(60, 119)] * 3).filter(
    lambda cell: sum(cell[3:]) < 345 and 2 * max(cell[3:]) < sum(cell[3:]) - 10
)


@given(CELLS, st.tuples(ANGLES, ANGLES, ANGLES))
def test_in_exact_mode_both_sets_of_vectors_are_dual(cell, misset):
    real, stars = (vectors.detach() for vectors in Crystal(cell, misset=misset).vectors("exact"))
    assert distance(real @ stars.mT, torch.eye(3)) < 1e-12
    metric, reciprocal = real @ real.mT, stars @ stars.mT
    lengths = real.norm(dim=-1)
    # (a a*) scaled by the lengths, so that a cell of 3 and 500 Å is held to the same
    scale = torch.outer(lengths, 1 / lengths)
    assert distance((metric @ reciprocal) / scale, torch.eye(3)) < 1e-12
    a, b, c, alpha, beta, gamma = cell
    cosines = [math.cos(math.radians(angle)) for angle in (gamma, beta, alpha)]
    expected = [a * a, b * b, c * c, a * b * cosines[0], a * c * cosines[1], b * c * cosines[2]]
    found = [metric[place].item() for place in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    sides = [a * a, b * b, c * c, a * b, a * c, b * c]
    assert max(abs(x - y) / s for x, y, s in zip(found, expected, sides, strict=True)) < 1e-12


@given(CELLS, st.tuples(ANGLES, ANGLES, ANGLES))
def test_a_crystal_of_reciprocal_vectors_has_the_cell_that_they_are_of(cell, misset):
    real, stars = (vectors.detach() for vectors in Crystal(cell, misset=misset).vectors("exact"))
    again, _ = Crystal(reciprocal=stars).vectors("exact")
    assert distance(again.detach() / real.norm(dim=-1, keepdim=True), real / real.norm(dim=-1, keepdim=True)) < 1e-12
