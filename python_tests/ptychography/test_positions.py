"""Positions by effect: steps point home, and a scan whose positions were wrong comes back."""

import pytest
import torch

from sem.ptycho import (
    LSQML,
    PIE,
    Scan,
    disk_probe,
    lines_object,
    position_steps,
    raster_scan,
    scores,
    simulate,
    without_affine,
)


@pytest.fixture(scope="module")
def known():
    truth = lines_object(96, 60, seed=1)
    positions = raster_scan(10, 10, 4) + 8
    scan, probe = simulate(truth, disk_probe(32, 7.0, defocus=15.0), positions, photons=1e7, seed=2)
    return truth, scan, probe


def test_a_step_leads_back_from_a_small_error(known):
    truth, scan, probe = known
    assert float(position_steps(scan, truth, probe, damping=1.0).abs().max()) < 0.02  # photon noise
    error = 0.5 * torch.rand(len(scan), 2, generator=torch.Generator().manual_seed(0)) - 0.25
    moved = Scan(scan.amplitudes, scan.positions + error)
    left = error + position_steps(moved, truth, probe, damping=1.0)
    assert float(left.norm(dim=1).median()) < 0.15 * float(error.norm(dim=1).median())
    half = position_steps(moved, truth, probe)
    torch.testing.assert_close(2 * half, left - error, rtol=1e-5, atol=1e-6)
    assert float(position_steps(moved, truth, probe, damping=1.0, limit=0.1).abs().max()) < 0.1001


def test_more_patterns_than_are_worked_on_at_a_time():
    truth, positions = lines_object(120, 60, seed=1), raster_scan(12, 12, 4) + 2.3
    scan, probe = simulate(truth, disk_probe(64), positions, photons=1e7, seed=2)
    scan = Scan(scan.amplitudes, scan.positions + 0.2)
    steps = position_steps(scan, truth, probe)
    halves = [
        position_steps(Scan(scan.amplitudes[k], scan.positions[k]), truth, probe)
        for k in (slice(0, 72), slice(72, None))
    ]
    torch.testing.assert_close(steps, torch.cat(halves), rtol=1e-4, atol=1e-5)


def test_steps_are_against_the_gradient(known):
    """A tiny Gauss-Newton step and the gradient of the loss have an obtuse angle, pattern by pattern."""
    from sem.ops import ptychographic_loss

    truth, scan, probe = known
    positions = (scan.positions + 0.2).requires_grad_()
    ptychographic_loss(truth, probe, positions, scan.amplitudes).total.backward()
    steps = position_steps(Scan(scan.amplitudes, positions.detach()), truth, probe)
    assert bool(((steps * positions.grad).sum(1) < 0).all())


@pytest.mark.parametrize("engine", [PIE, LSQML])
def test_wrong_positions_come_back(known, engine):
    truth, scan, probe = known
    generator = torch.Generator().manual_seed(1)
    wrong = Scan(scan.amplitudes, scan.positions + 4 * torch.rand(len(scan), 2, generator=generator) - 2)
    settings = {"alpha": 0.2} if engine is PIE else {"batch": 24}
    run = engine(wrong, probe, torch.ones_like(truth), probe_from=None, **settings)
    blind = engine(wrong, probe, torch.ones_like(truth), probe_from=None, **settings).run(45)
    run.run(5)
    for _ in range(40):
        run.refine_positions()
        run.run(1)
    error = (without_affine(run.scan.positions, scan.positions) - scan.positions).norm(dim=1)
    assert float(error.median()) < 0.1
    assert scores(run.state.object, truth, 24).amp_ssim > 0.98 > scores(blind.object, truth, 24).amp_ssim + 0.1


def test_a_position_stays_inside_the_object(known):
    truth, scan, probe = known
    tight = Scan(scan.amplitudes, scan.positions - scan.positions.amin(0))
    run = PIE(tight, probe, probe_from=None)
    run.run(2)
    run.refine_positions(damping=1.0, limit=5.0)
    assert float(run.scan.positions.min()) >= 0
    run.run(1)


def test_an_affine_map_is_no_error():
    truth = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) * 50
    askew = truth @ torch.tensor([[1.02, 0.1], [-0.05, 0.97]]) + torch.tensor([3.0, -7.0])
    torch.testing.assert_close(without_affine(askew, truth), truth, rtol=1e-5, atol=1e-4)
