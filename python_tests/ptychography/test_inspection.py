"""What a scan says of itself before anything is reconstructed, by scans made so that it is known."""

from dataclasses import replace

import pytest
import torch

from sem.ptycho import AXES, Scan, ScanFile, Simulation, disk_probe, inspect_scan, raster_scan, spiral_scan, try_axes
from sem.ptycho.files.checks import laid_along
from sem.ptycho.inspection import (
    AxesTrial,
    best_first,
    illumination,
    lit_box,
    opposite,
    periodicity,
    ring_share,
    scale_to_counts,
)

SMALL = Simulation(side=16, rows=8, columns=8, step=3, lines=20, radius=4, defocus=6, photons=1e8)


@pytest.fixture(scope="module")
def made():
    return SMALL.make()


def test_numbers_of_a_known_scan(made):
    found = inspect_scan(replace(made, scan=replace(made.scan, positions=raster_scan(8, 8, 3, jitter=0))))
    assert (found.patterns, found.side, found.spacing, found.extent) == (64, 16, 3.0, (21.0, 21.0))
    assert found.object_shape == (37, 37)
    assert found.radius == pytest.approx(4, abs=0.3) and found.overlap == pytest.approx(1 - 3 / 8, abs=0.03)
    least, mean, most = found.dose
    assert least < mean < most and mean == pytest.approx(1e8, rel=1e-3)
    assert any("repeat as a raster does" in warning for warning in found.warnings)
    bare = inspect_scan(ScanFile(made.scan))
    assert (bare.radius, bare.overlap, bare.ring, bare.probe_power) == (None,) * 4


def test_dead_and_masked_pixels_and_what_they_look_like(made):
    data = made.scan.amplitudes.clone()
    data[:, 0, 1] = data[:, 3, 15] = 0
    assert inspect_scan(made).dead == 0
    found = inspect_scan(replace(made, scan=replace(made.scan, amplitudes=data)))
    assert found.dead == 2 and any("2 pixels never count" in warning for warning in found.warnings)
    weight = torch.ones(16, 16)
    weight[0, 1] = weight[3, 15] = 0
    masked = inspect_scan(replace(made, scan=Scan(data, made.scan.positions, weight)))
    assert (masked.dead, masked.masked) == (0, 2)


def test_a_probe_that_fills_its_frame_is_warned_about(made):
    assert ring_share(torch.ones(1, 10, 10, dtype=torch.complex64)) == pytest.approx(0.36)
    wide = disk_probe(16, 8.0, defocus=30.0)
    found = inspect_scan(replace(made, probe=wide))
    assert found.ring > 0.01 and any("outermost ring" in warning for warning in found.warnings)


def test_periodicity_of_rasters_jitter_and_spirals():
    assert periodicity(raster_scan(20, 20, 5, jitter=0)) > 0.95
    assert periodicity(raster_scan(20, 20, 5, jitter=2, seed=1)) < 0.4
    assert periodicity(spiral_scan(400, 3.0)) < 0.4
    assert periodicity(torch.zeros(9, 2)) == 0


def test_light_falls_where_the_probe_stands():
    probe = torch.ones(1, 4, 4, dtype=torch.complex64)
    light = illumination(torch.tensor([[1.0, 2.0], [2.4, 2.0]]), probe, (9, 8))
    assert light[1:6, 2:6].tolist() == [[1.0] * 4, [2.0] * 4, [2.0] * 4, [2.0] * 4, [1.0] * 4]
    assert float(light.sum()) == 32
    assert lit_box(torch.tensor([[1.0, 2.0]]), probe, (9, 8)) == (slice(1, 5), slice(2, 6))


def test_a_probe_in_other_units_is_brought_to_counts(made):
    factor = scale_to_counts(made.scan, 0.01 * made.probe)
    assert factor == pytest.approx(100 * scale_to_counts(made.scan, made.probe), rel=1e-5)
    flat = torch.ones_like(made.object)
    counts = replace(made.scan, amplitudes=_amplitudes(flat, made))
    assert scale_to_counts(counts, made.probe) == pytest.approx(1, rel=1e-5)
    weight = torch.ones(16, 16)
    weight[0, :] = 0  # masked counts are not missed
    assert scale_to_counts(replace(counts, weight=weight), made.probe) == pytest.approx(1, rel=1e-4)


def _amplitudes(object, made):
    from sem.ptycho import far_intensity

    return far_intensity(object, made.probe, made.scan.positions).sqrt()


@pytest.mark.parametrize("axes", ["+y+x", "-x+y", "+y-x"])
def test_a_trial_finds_how_axes_lie(made, axes):
    """Positions laid otherwise than the patterns are come back under the orientation that undoes it."""
    wrong = torch.stack(laid_along(made.scan.positions, axes), 1)
    found = try_axes(replace(made, scan=replace(made.scan, positions=wrong)), sweeps=8)
    right = torch.stack(laid_along(wrong, found[0].axes), 1)
    torch.testing.assert_close(right - right.amin(0), made.scan.positions)
    assert found[0].refined < 0.5 * found[1].refined and len(found) == 8
    assert opposite(found[0].axes) == found[1].axes  # the twin is next


def test_a_pair_is_ranked_by_its_refined_probe_and_within_by_the_given_one():
    misfits = {"+y+x": (0.30, 0.051), "-y-x": (0.25, 0.052), "+x-y": (0.20, 0.2)}
    trials = [AxesTrial(axes, *misfits.get(axes, (0.4, 0.4))) for axes in AXES]
    assert [trial.axes for trial in best_first(trials)][:3] == ["-y-x", "+y+x", "+x-y"]
