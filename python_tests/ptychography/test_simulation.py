"""Simulated scans: units, seeds, statistics, and what probes and modes must keep."""

import pytest
import torch

from sem.ptycho import (
    Scan,
    disk_probe,
    far_intensity,
    lines_object,
    orthogonal_modes,
    raster_scan,
    simulate,
    spiral_scan,
    with_hermite_modes,
)


def test_objects_have_unit_mean_and_seeds_of_their_own():
    first, again, other = lines_object(40, 20, seed=1), lines_object(40, 20, seed=1), lines_object(40, 20, seed=2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.abs().mean()) == pytest.approx(1, abs=1e-6) and float(first.angle().abs().max()) > 0.1
    assert float(lines_object(40, 20, seed=1, phase=False).angle().abs().max()) == 0


@pytest.mark.parametrize("side", [31, 32])
def test_a_probe_has_its_middle_where_a_pixel_is(side):
    probe = disk_probe(side)
    assert probe.shape == (1, side, side) and float(probe.abs().square().sum()) == pytest.approx(1, abs=1e-6)
    weight = probe[0].abs().square()
    along = torch.arange(side, dtype=torch.float32)
    for axis in (0, 1):
        assert float((weight.sum(1 - axis) * along).sum()) == pytest.approx(side // 2, abs=0.05)
    plain = disk_probe(side, defocus=0.0)
    assert float(plain.imag.abs().max()) < 1e-7 and float(probe.imag.abs().max()) > 1e-3


def test_modes_made_orthogonal_keep_intensities():
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(3, 16, 16, dtype=torch.complex64, generator=generator)
    modes = orthogonal_modes(probe)
    gram = modes.flatten(1) @ modes.flatten(1).mH
    assert float((gram - gram.diagonal().diag()).abs().max()) < 1e-4 * float(gram.abs().max())
    assert gram.diagonal().real.tolist() == sorted(gram.diagonal().real.tolist(), reverse=True)
    truth, positions = lines_object(24, 10, seed=0), raster_scan(3, 3, 3)
    before, after = far_intensity(truth, probe, positions), far_intensity(truth, modes, positions)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6 * float(before.max()))


def test_modes_to_start_from_have_their_share():
    modes = with_hermite_modes(disk_probe(32), 4, share=0.1)
    power = modes.abs().square().sum((1, 2))
    torch.testing.assert_close(power, torch.tensor([0.7, 0.1, 0.1, 0.1]), rtol=1e-5, atol=1e-6)
    gram = (modes.flatten(1) @ modes.flatten(1).mH).abs()
    assert float((gram - gram.diagonal().diag()).max()) < 1e-6


def test_counts_are_those_asked_for_and_have_photon_noise():
    truth, positions = lines_object(48, 20, seed=1), raster_scan(5, 5, 6, seed=3)
    clean, probe = simulate(truth, disk_probe(16), positions, photons=1e5, seed=None)
    assert float(clean.amplitudes.square().sum((1, 2)).mean()) == pytest.approx(1e5, rel=1e-4)
    noisy, same = simulate(truth, disk_probe(16), positions, photons=1e5, seed=4)
    assert torch.equal(probe, same)
    bright = clean.amplitudes.square() > 10
    chi = 4 * (noisy.amplitudes - clean.amplitudes)[bright].square().mean()
    assert 0.9 < float(chi) < 1.1
    again, _ = simulate(truth, disk_probe(16), positions, photons=1e5, seed=4)
    assert torch.equal(noisy.amplitudes, again.amplitudes)


def test_scans_lie_where_they_say():
    raster = raster_scan(3, 4, 5, jitter=0)
    assert raster.tolist()[:5] == [[0, 0], [0, 5], [0, 10], [0, 15], [5, 0]]
    jittered = raster_scan(20, 20, 5, jitter=1) - raster_scan(20, 20, 5, jitter=0)
    assert {round(v) for v in (jittered - jittered.amin(0)).flatten().tolist()} == {0, 1, 2}
    spiral = spiral_scan(200, 3.0)
    middle = spiral[0]
    assert float((spiral - middle).norm(dim=1).max()) == pytest.approx(3 * 199**0.5, rel=1e-4)
    assert float(spiral.amin()) == 0


def test_a_scan_knows_its_object():
    scan = Scan(torch.ones(2, 8, 8), torch.tensor([[0.0, 0.0], [3.4, 2.6]]))
    assert scan.corners.tolist() == [[0, 0], [3, 3]] and scan.object_shape(0) == (11, 11)
    moved = scan.with_margin(5)
    assert moved.positions.tolist()[0] == [5, 5] and moved.object_shape(5) == (21, 21)
    with pytest.raises(ValueError, match="pattern 1 .* leaves the object of 10 x 11 pixels"):
        scan.patches((10, 11))


def test_an_object_without_a_margin_is_whole():
    assert lines_object(40, 20, seed=1, margin=0).shape == (40, 40)


def test_shares_that_leave_nothing_to_the_first_mode_are_refused():
    with pytest.raises(ValueError, match=r"^share: expected less than 1 / 3 for each of 3 further modes, got 0\.4$"):
        with_hermite_modes(disk_probe(16), 4, share=0.4)
