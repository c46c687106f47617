"""Positions by effect: steps point home, and a scan whose positions were wrong comes back."""

import pytest
import torch

from sem.ops import ptychographic_loss
from sem.ptycho import (
    LSQML,
    PIE,
    AnnealPositions,
    MaximumLikelihood,
    Projections,
    RefinePositions,
    ResultFile,
    Scan,
    affine_onto,
    disk_probe,
    far_intensity,
    lines_object,
    position_steps,
    raster_scan,
    scores,
    simulate,
    without_affine,
)
from sem.ptycho import pictures as pictures_module
from sem.ptycho.pictures import draw_positions
from sem.ptycho.positions import trial_offsets


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


def test_steps_of_many_patterns_are_those_of_each():
    """More than are worked on at a time, with and without weights, some of them of pixels that hold anything."""
    truth, generator = lines_object(80, 20, seed=1), torch.Generator().manual_seed(0)
    positions = 10 * torch.rand(40, 2, generator=generator)
    scan, probe = simulate(truth, disk_probe(64), positions + 0.1, photons=1e7, seed=2)
    amplitudes = scan.amplitudes.clone()
    amplitudes[:, 3, 4] = torch.inf
    one = torch.ones(64, 64)
    one[3, 4] = 0
    each = one * (1 + torch.rand(40, 64, 64, generator=generator))
    for given, weight in ((scan.amplitudes, None), (amplitudes, one), (amplitudes, each)):
        together = position_steps(Scan(given, positions, weight), truth, probe)
        weights = [each[j : j + 1] if weight is each else weight for j in range(40)]
        scans = [Scan(given[j : j + 1], positions[j : j + 1], weights[j]) for j in range(40)]
        alone = [position_steps(scan, truth, probe) for scan in scans]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
        assert bool(together.isfinite().all()) and float(together.abs().max()) > 0.01


def test_steps_are_against_the_gradient(known):
    """A tiny Gauss-Newton step and the gradient of the loss have an obtuse angle, pattern by pattern."""
    truth, scan, probe = known
    positions = (scan.positions + 0.2).requires_grad_()
    ptychographic_loss(truth, probe, positions, scan.amplitudes).total.backward()
    steps = position_steps(Scan(scan.amplitudes, positions.detach()), truth, probe)
    assert bool(((steps * positions.grad).sum(1) < 0).all())


def off_by(scan, size, seed=1):
    """The scan with positions that are off by up to ``size`` pixels along each axis."""
    error = 2 * size * torch.rand(len(scan), 2, generator=torch.Generator().manual_seed(seed)) - size
    return Scan(scan.amplitudes, scan.positions + error)


def left(run, scan):
    """Median error of the positions, but for what is the object's as well."""
    return float((without_affine(run.scan.positions, scan.positions) - scan.positions).norm(dim=1).median())


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        (PIE, dict(alpha=0.2, constraints=[RefinePositions()])),
        (LSQML, dict(batch=24, constraints=[RefinePositions()])),
        (Projections, dict(beta=0.8, constraints=[RefinePositions()])),
        (MaximumLikelihood, dict(sweeps_planned=45, constraints=[RefinePositions()])),
        (MaximumLikelihood, dict(sweeps_planned=45, position_rate=0.2)),
    ],
)
def test_wrong_positions_come_back(known, engine, settings):
    truth, scan, probe = known
    wrong = off_by(scan, 2)
    blind = {name: value for name, value in settings.items() if name not in ("constraints", "position_rate")}
    run, blind = (engine(wrong, probe, torch.ones_like(truth), probe_from=None, **given) for given in (settings, blind))
    run.run(45)
    blind.run(20)
    assert left(run, scan) < 0.1 < 0.5 < left(blind, scan)
    assert scores(run.state.object, truth, 24).amp_ssim > 0.98 > scores(blind.state.object, truth, 24).amp_ssim + 0.1


def test_between_sweeps_as_after_each(known):
    truth, scan, probe = known
    given = off_by(scan, 2), probe, torch.ones_like(truth)
    by_hand = PIE(*given, alpha=0.2, probe_from=None)
    for _ in range(4):
        by_hand.run(1)
        by_hand.refine_positions(damping=0.7)
    run = PIE(*given, alpha=0.2, probe_from=None, constraints=[RefinePositions(0, damping=0.7)])
    assert torch.equal(run.run(4).object, by_hand.state.object)
    assert torch.equal(run.scan.positions, by_hand.scan.positions)


def test_lost_positions_need_annealing():
    """Every seventh pattern is 6 pixels from where it should be, far beyond where its gradient leads back from."""
    truth = lines_object(104, 70, seed=1)
    scan, probe = simulate(truth, disk_probe(32, 7.0, defocus=15.0), raster_scan(11, 11, 4) + 12, photons=1e7, seed=2)
    generator = torch.Generator().manual_seed(3)
    error, lost = torch.rand(121, 2, generator=generator) - 0.5, torch.rand(121, generator=generator) < 0.15
    turn = 2 * torch.pi * torch.rand(int(lost.sum()), generator=generator)
    error[lost] += 6 * torch.stack([turn.sin(), turn.cos()], 1)
    wrong = Scan(scan.amplitudes, scan.positions + error)
    found = []
    for constraints in ([RefinePositions()], [AnnealPositions(6.0, end=30), RefinePositions()]):
        run = PIE(wrong, probe, torch.ones_like(truth), alpha=0.2, probe_from=None, constraints=constraints)
        state = run.run(45)
        off = (affine_onto(run.scan.positions, scan.positions, 1.0 - lost.float()) - scan.positions).norm(dim=1)
        found.append((int((off > 1).sum()), scores(state.object, truth, 26).amp_ssim, state.reports[-1].chi_squared))
    refined, annealed = found
    assert 15 < int(lost.sum()) < 25
    assert refined[0] >= 8 and annealed[0] <= 3, found
    assert annealed[1] > refined[1] + 0.01 and annealed[2] < 0.25 * refined[2], found


def test_an_offset_is_taken_where_it_lowers_that_patterns_loss_and_not_too_far(known):
    truth, scan, probe = known
    wrong = off_by(scan, 2)
    reach = torch.tensor([0.0, 3.0]).repeat(50)

    def loss(positions):
        return ptychographic_loss(truth, probe, positions, scan.amplitudes).loss

    given = truth, probe, 3.0, 6, torch.Generator().manual_seed(0)
    steps = trial_offsets(wrong, *given, about=wrong.positions, reach=3.0)
    moved = steps.norm(dim=1) > 0
    before, after = loss(wrong.positions), loss(wrong.positions + steps)
    assert 50 < int(moved.sum()) < 100 and float(steps.norm(dim=1).max()) <= 3.0
    assert bool((after[moved] < before[moved]).all()) and torch.equal(after[~moved], before[~moved])
    assert float((wrong.positions + steps - scan.positions).norm(dim=1).median()) < 0.9
    held = trial_offsets(wrong, *given[:4], torch.Generator().manual_seed(0), about=wrong.positions, reach=reach)
    assert torch.equal(held[1::2], steps[1::2]) and not held[::2].any()


def test_a_stage_out_of_scale_is_found_out(known):
    """What all patterns say together is surer than what each does."""
    truth, _, _ = known
    positions = raster_scan(10, 10, 4) + 8
    scan, probe = simulate(truth, disk_probe(32, 7.0, defocus=15.0), positions, photons=1e6, seed=2)
    middle = scan.positions.mean(0)
    askew = (scan.positions - middle) @ torch.tensor([[1.03, 0.02], [-0.015, 0.98]]) + middle
    errors = []
    for affine in (False, True):
        constraints = [RefinePositions(5, damping=1.0, affine=affine)]
        given = Scan(scan.amplitudes, askew), probe, torch.ones_like(truth)
        run = PIE(*given, alpha=0.2, probe_from=None, constraints=constraints)
        run.run(40)
        off = run.scan.positions - scan.positions
        errors.append(float((off - off.mean(0)).norm(dim=1).median()))
    assert errors[1] < 0.5 * errors[0] < 0.5 * float((askew - scan.positions).norm(dim=1).median()), errors
    assert left(run, scan) < 1e-4


def test_a_position_stays_inside_the_object(known):
    truth, scan, probe = known
    tight = Scan(scan.amplitudes, scan.positions - scan.positions.amin(0))
    run = PIE(tight, probe, probe_from=None)
    run.run(2)
    before, most = run.scan.positions, torch.tensor(run.state.object.shape) - scan.side
    steps = 20 * torch.rand(len(scan), 2, generator=torch.Generator().manual_seed(0)) - 10
    moved = run.move_positions(steps)
    torch.testing.assert_close(run.scan.positions, before + moved)
    assert float(run.scan.positions.min()) == 0 and bool((run.scan.positions == most).any())
    inside = (run.scan.positions > 0) & (run.scan.positions < most)
    torch.testing.assert_close(moved[inside], (steps - steps.mean(0))[inside], rtol=1e-4, atol=1e-4)
    run.run(1)
    with pytest.raises(ValueError, match="corners: .* leaves the object"):
        run.stand_at(before - 1)


@pytest.mark.parametrize("step", [0.3, 0.6, -0.7, 1.0])
def test_waves_stay_with_their_probe_when_it_moves(known, step):
    """Behind an object of ones, the waves of the difference map are the probe as it stands there."""
    _, scan, probe = known
    flat = torch.ones(100, 100, dtype=torch.complex64)
    run = Projections(simulate(flat, probe, scan.positions, seed=None)[0], probe, flat, probe_from=None)
    run.model.data[:] = far_intensity(flat, run.state.probe, scan.positions).sqrt()
    run.run(1)
    torch.testing.assert_close(run.waves[3], probe, rtol=1e-3, atol=1e-3 * float(probe.abs().max()))
    run.stand_at(scan.positions + step)
    there = run.model.moved(probe, slice(None))
    torch.testing.assert_close(run.waves[3], there[3 % len(there)], rtol=1e-3, atol=1e-3 * float(probe.abs().max()))


def test_an_affine_map_is_no_error():
    truth = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) * 50
    askew = truth @ torch.tensor([[1.02, 0.1], [-0.05, 0.97]]) + torch.tensor([3.0, -7.0])
    torch.testing.assert_close(without_affine(askew, truth), truth, rtol=1e-5, atol=1e-4)


def test_a_weight_says_which_positions_an_affine_map_is_of():
    truth = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) * 50
    target = truth @ torch.tensor([[1.02, 0.1], [-0.05, 0.97]]) + torch.tensor([3.0, -7.0])
    stray = target.clone()
    stray[3] += 9
    weight = torch.ones(30)
    weight[3] = 0
    torch.testing.assert_close(affine_onto(truth, stray, weight), target, rtol=1e-5, atol=1e-4)
    assert float((affine_onto(truth, stray) - target).abs().max()) > 0.5
    # and its equations: weighted errors are orthogonal to a constant and to both coordinates
    weight = torch.rand(30, generator=torch.Generator().manual_seed(1))
    error = weight.unsqueeze(1) * (stray - affine_onto(truth, stray, weight))
    assert float(error.sum(0).abs().max()) < 1e-3 and float((truth.mT @ error).abs().max()) < 1e-1


def test_the_picture_of_the_steps_leaves_out_what_no_pattern_tells(known, tmp_path, monkeypatch):
    """Of positions that one affine map moved, and one of them by a pixel more."""
    _, scan, probe = known
    drawn = []
    save = pictures_module.save_figure
    monkeypatch.setattr(
        pictures_module, "save_figure", lambda figure, *a, **k: (drawn.append(figure), save(figure, *a, **k))
    )
    start = scan.positions
    turn = torch.tensor([[1.02, 0.01], [-0.03, 0.99]])
    moved = start @ turn + 0.5
    moved[37, 0] += 1
    draw_positions(ResultFile("moved", torch.ones(99, 99) + 0j, probe, moved, start), tmp_path / "positions.png")
    assert (tmp_path / "positions.png").stat().st_size > 5000
    panels = [axes for axes in drawn[0].axes if axes.get_title().startswith("moved")]
    lengths = [torch.from_numpy(axes.collections[0].get_array().data) for axes in panels]
    assert torch.allclose(lengths[0], (moved - start - (moved - start).mean(0)).norm(dim=1).double(), atol=1e-4)
    assert int(lengths[1].argmax()) == 37 and float(lengths[1].max()) == pytest.approx(1, abs=0.05)
    assert float(lengths[1].median()) < 0.02 < 0.3 < float(lengths[0].median())
    arrows = panels[1].collections[0]
    assert float(arrows.V[37]) > 0.9 and panels[1].yaxis_inverted()  # down, as rows are counted
