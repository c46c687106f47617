"""Cells, rotations, conventions, sources: by hand and by what must hold."""

import math

import pytest
import torch

from sem.diffraction import CONVENTIONS, Beam, Crystal, Detector, SourceRow, custom
from sem.diffraction.beam import spread
from sem.diffraction.cell import real_vectors, reciprocal_vectors, volume
from sem.diffraction.experiment import experiment_from, random_misset
from sem.diffraction.parameters import DEGREE
from sem.diffraction.rotations import about_axis, about_xyz

TRICLINIC = (70, 80, 90, 75, 85, 95)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_rotations_follow_the_right_hand():
    x, y, z = torch.eye(3, dtype=torch.float64)
    quarter = double(math.pi / 2).squeeze()
    torch.testing.assert_close(about_axis(x, z, quarter), y)
    torch.testing.assert_close(about_axis(y, x, quarter), z)
    # x first: it leaves x alone, then y takes x to -z, then z leaves that alone
    torch.testing.assert_close(about_xyz(x, double(1.0, math.pi / 2, 1.0)), -z)


def test_an_exact_cell_has_its_lengths_angles_and_volume():
    lengths, angles = double(*TRICLINIC[:3]), double(*TRICLINIC[3:]) * DEGREE
    real = real_vectors(reciprocal_vectors(lengths, angles, exact=True))
    torch.testing.assert_close(real.norm(dim=-1), lengths)
    a, b, c = real / lengths[:, None]
    torch.testing.assert_close(torch.stack([b @ c, c @ a, a @ b]), torch.cos(angles))
    torch.testing.assert_close(torch.linalg.det(real), volume(lengths, angles))


def test_physics_modes_differ_in_c_star_alone_and_only_for_oblique_cells():
    def stars(cell, exact):
        return reciprocal_vectors(double(*cell[:3]), double(*cell[3:]) * DEGREE, exact=exact)

    difference = (stars(TRICLINIC, False) / stars(TRICLINIC, True))[2, 2] - 1
    assert 2e-3 < difference.abs() < 2e-2
    for cell in ((60, 70, 80, 90, 100, 90), (60, 70, 80, 90, 90, 90), (60, 60, 80, 90, 90, 120)):
        torch.testing.assert_close(stars(cell, False), stars(cell, True))


def test_a_crystal_from_its_reciprocal_vectors_is_the_crystal_of_the_cell():
    made = Crystal(TRICLINIC, misset=(10, 20, 30))
    real, stars = made.vectors("exact")
    again = Crystal(reciprocal=stars.detach())
    torch.testing.assert_close(again.vectors("exact")[0], real)
    torch.testing.assert_close(real @ stars.T, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_spindle_and_domains_rotate_without_stretching():
    crystal = Crystal(TRICLINIC, phi=5, oscillation=2, phi_steps=4, mosaic_spread=0.5, mosaic_domains=7)
    vectors = crystal(double(0, 0, 1)) * 1e10  # metres to Å, far from the tolerances of the comparisons below
    assert vectors.shape == (4, 7, 3, 3)
    real = crystal.vectors()[0]
    gram = vectors @ vectors.transpose(-1, -2)
    torch.testing.assert_close(gram, (real @ real.T).expand_as(gram))
    assert crystal.phi_angles().tolist() == [5.0, 5.5, 6.0, 6.5]
    torch.testing.assert_close(vectors[0, 0], about_axis(real, double(0, 0, 1), double(5 * DEGREE).squeeze()))
    tilts = torch.arccos(torch.nn.functional.cosine_similarity(vectors[0, :1], vectors[0], dim=-1).clamp(-1, 1))
    assert 0.05 * DEGREE < tilts.max() <= 0.5 * DEGREE + 1e-6


def test_the_same_seed_draws_the_same_domains():
    def domains(seed):
        return Crystal(TRICLINIC, mosaic_spread=1, mosaic_seed=seed).mosaic_axes

    assert torch.equal(domains(1), domains(1))
    assert not torch.equal(domains(1), domains(2))


def test_random_orientations_are_even():
    turned = torch.stack([about_xyz(double(0, 0, 1), double(*random_misset(seed)) * DEGREE) for seed in range(400)])
    assert turned.mean(dim=0).abs().max() < 0.1
    torch.testing.assert_close(turned.T @ turned / 400, torch.eye(3, dtype=torch.float64) / 3, atol=0.06, rtol=0)


ORIGINS = {  # of 100 x 60 pixels of 0.1 mm at 100 mm, worked out by hand from where each program puts the beam
    "MOSFLM": (100, 3.1, -5.1),
    "DENZO": (100, 3.05, -5.05),
    "ADXV": (-5.05, 3.05, 100),
    "XDS": (-5, -3, 100),
    "DIALS": (-5, -3, 100),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_default_origin_of_each_convention(name):
    frame = Detector((100, 60), convention=name)()
    torch.testing.assert_close(frame.origin * 1e3, double(*ORIGINS[name]))
    torch.testing.assert_close(torch.linalg.cross(frame.fast, frame.slow).abs(), frame.normal.abs())


def test_a_given_beam_centre_in_each_convention():
    def corner(name):
        detector = Detector((100, 60), convention=name, beam_center=(2.0, 1.0))
        frame = detector()
        return [round(float(-(frame.origin @ axis)) * 1e3, 9) for axis in (frame.fast, frame.slow)]

    assert corner("MOSFLM") == [1.05, 2.05]
    assert corner("DENZO") == [1.0, 2.0]
    assert corner("ADXV") == [2.0, 5.0]
    assert corner("XDS") == [5.0, 3.0]  # it turns about the sample: the nearest point decides


@pytest.mark.parametrize("name", ["MOSFLM", "ADXV"])
def test_a_pivot_at_the_beam_keeps_the_beam_on_its_spot(name):
    detector = Detector((64, 64), convention=name, beam_center=(3.0, 2.0), rotation=(5, -3, 2), two_theta=12)
    frame = detector()
    spot = detector.convention.fast_slow(detector.beam_center, 0.1, 6.4) * 1e-3
    hit = frame.origin + spot[0] * frame.fast + spot[1] * frame.slow
    torch.testing.assert_close(torch.linalg.cross(hit, detector.axes.beam), double(0, 0, 0), atol=1e-15, rtol=0)
    torch.testing.assert_close(hit.norm(), double(0.1).squeeze())


@pytest.mark.parametrize("name", ["XDS", "DIALS"])
def test_a_pivot_at_the_sample_keeps_the_nearest_point(name):
    frame = Detector((64, 64), convention=name, near_point=(3.0, 2.0), two_theta=20)()
    nearest = frame.origin + 3e-3 * frame.fast + 2e-3 * frame.slow
    torch.testing.assert_close(nearest, 0.1 * frame.normal)
    assert frame.close_distance.item() == pytest.approx(0.1)


def test_an_explicit_pivot_counts_in_exact_physics_and_with_custom_vectors():
    detector = Detector((64, 64), pivot="sample", rotation=(0, 10, 0))
    assert (detector.pivot_in("nanobragg"), detector.pivot_in("exact")) == ("beam", "sample")
    assert Detector(convention=custom(beam=(1, 0, 0)), pivot="sample").pivot_in("nanobragg") == "sample"


def test_close_distance_replaces_the_distance():
    frame = Detector((64, 64), close_distance=80, rotation=(0, 10, 0))()
    assert float(frame.close_distance) == pytest.approx(0.08)
    assert float(Detector((64, 64), 0.1, 80, rotation=(0, 10, 0))().close_distance) < 0.08


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, None), (0, 0, 1)),
        ((2, None, None), (2, 2, 2)),
        ((None, 2, None), (2, 2, 2)),
        ((2, 0.5, None), (2, 0.5, 4)),
        ((2, None, 5), (2, 0.5, 5)),
        ((2, None, 1), (2, 2, 2)),
        ((None, None, 4), (1, 0.25, 4)),
        ((None, 2, 5), (2, 2, 2)),
        ((0, None, 3), (0, 0, 1)),
        ((0, None, None), (0, 0, 1)),
    ],
)
def test_range_step_and_number(given, expected):
    assert spread(*given) == expected


def test_divergence_is_elliptic_and_about_the_right_axes():
    axes = Detector().axes
    sources = Beam(divergence=(2.0, 4.0), divergence_steps=(5, 5))(axes)
    torch.testing.assert_close(sources.direction.norm(dim=-1), torch.ones(len(sources.direction), dtype=torch.float64))
    # the beam runs along x and is polarised along z: horizontal angles move the source along z, vertical ones along y
    horizontal, vertical = sources.direction[:, 2] * 1e3, sources.direction[:, 1] * 1e3
    assert horizontal.abs().max() == pytest.approx(1.0, abs=1e-5)
    assert vertical.abs().max() == pytest.approx(2.0, abs=1e-5)
    assert ((horizontal**2 + (vertical / 2) ** 2) <= 1.1).all()
    assert len(sources.direction) == 13
    square = Beam(divergence=(2.0, 4.0), divergence_steps=(5, 5), round_divergence=False)(axes)
    assert len(square.direction) == 25


def test_dispersion_and_divergence_multiply():
    sources = Beam(2.0, dispersion=0.02, dispersion_steps=3, divergence=(1.0, None))(Detector().axes)
    assert [round(value * 1e10, 9) for value in sources.wavelength.tolist()] == [1.98, 2.0, 2.02] * 2
    assert torch.equal(sources.direction[0], sources.direction[2])


def test_source_rows():
    rows = (SourceRow((-2, 0, 0), 1.0, 1.5), SourceRow((-1, 0.1, 0), 3.0))
    beam, axes = Beam(1.0, sources=rows), Detector().axes
    assert [round(value * 1e10, 9) for value in beam(axes).wavelength.tolist()] == [1.5, 1.0]
    assert beam(axes).weight is None
    assert beam(axes, "relative").weight.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("flags", "angles"),
    [
        ("-phi 3", [3]),
        ("-osc 1", [0, 0.5]),
        ("-osc 1 -phisteps 5", [0, 0.2, 0.4, 0.6, 0.8]),
        ("-phi 1 -phistep 0.5", [1, 1.5]),
        ("-osc 1 -phistep 0.25", [0, 0.25, 0.5, 0.75]),
        ("-phistep 0.1 -phisteps 3", [0, 0.1]),
        ("-osc 1 -phistep 0.1 -phisteps 3", [0, 0.1, 0.2]),
    ],
)
def test_spindle_angles(flags, angles):
    crystal = experiment_from(f"-cell 9 9 9 90 90 90 -default_F 1 {flags}".split()).simulator.crystal
    assert crystal.phi_angles().tolist() == pytest.approx(angles)
