"""Engines against a stored sweep of a float64 program written from the formulas alone, and by what they reconstruct."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from sem.ops import ptychographic_loss
from sem.ptycho import (
    LSQML,
    PIE,
    MaximumLikelihood,
    Projections,
    Scan,
    disk_probe,
    floors,
    lbfgs,
    lines_object,
    raster_scan,
    scores,
    simulate,
    with_hermite_modes,
)
from sem.ptycho.model import _photon_noise

GOLDEN = Path(__file__).parent / "golden"
RPIE = dict(alpha=0.2, beta=0.6, object_step=0.9, probe_step=0.5)


def stored(name, dtype):
    with np.load(GOLDEN / f"engines_{name}.npz") as file:
        found = {key: torch.from_numpy(file[key]) for key in file}
    real = torch.empty(0, dtype=dtype).real.dtype
    scan = Scan(found["amplitude"].to(real), found["positions"].to(real), found["weight"].to(real))
    return scan, found["probe_start"].to(dtype), found["object_start"].to(dtype), found


@pytest.mark.parametrize(("dtype", "limit"), [(torch.complex128, 1e-12), (torch.complex64, 1e-4)])
@pytest.mark.parametrize("name", ["small", "modes"])
@pytest.mark.parametrize("engine", ["epie", "rpie", "difference_map", "raar"])
def test_sweeps_are_the_stored_ones(engine, name, dtype, limit):
    scan, probe, object, found = stored(name, dtype)
    if engine in ("epie", "rpie"):
        settings = RPIE if engine == "rpie" else {}
        run = PIE(scan, probe, object, probe_from=0, order=found["order"], **settings)
        sweeps = 1
    else:
        run, sweeps = Projections(scan, probe, object, beta=1.0 if engine == "difference_map" else 0.8, probe_from=0), 2
    state = run.run(sweeps)
    assert len(state.reports) == sweeps
    for value, key in ((state.object, "object"), (state.probe, "probe")):
        exact = found[f"{engine}_{key}"]
        assert float((value - exact).abs().max() / exact.abs().max()) < limit
    if isinstance(run, Projections):
        exact = found[f"{engine}_wave0"]
        assert float((run.waves[0] - exact).abs().max() / exact.abs().max()) < limit


@pytest.fixture(scope="module")
def known():
    """A truth, its scan with whole-pixel jitter, and the probe in the scan's units."""
    truth = lines_object(90, 60, seed=1)
    probe = disk_probe(32, 7.0, defocus=15.0)
    scan, probe = simulate(truth, probe, raster_scan(11, 11, 4), photons=1e7, seed=2)
    return truth, scan, probe


def quality(state, truth):
    shape = state.object.shape
    return scores(state.object, truth[: shape[0], : shape[1]], crop=16)


@pytest.mark.parametrize(
    ("engine", "settings", "sweeps", "amplitude", "error"),
    [
        (PIE, {}, 8, 0.97, 0.08),
        (PIE, dict(alpha=0.1), 8, 0.99, 0.03),
        (Projections, {}, 20, 0.99, 0.05),
        (Projections, dict(beta=0.8), 20, 0.99, 0.02),
        (LSQML, dict(batch=24), 10, 0.99, 0.04),
        (MaximumLikelihood, dict(sweeps_planned=30), 30, 0.999, 0.01),
        (MaximumLikelihood, dict(sweeps_planned=30, kind="poisson"), 30, 0.99, 0.03),
    ],
)
def test_a_known_probe_gives_the_object(known, engine, settings, sweeps, amplitude, error):
    truth, scan, probe = known
    run = engine(scan, probe, probe_from=None, **settings)
    state = run.run(sweeps)
    found = quality(state, truth)
    assert found.amp_ssim > amplitude and found.complex_error < error, found
    assert floors(truth, 16).amp_ssim < 0.5
    assert torch.equal(state.probe, probe)
    chi, change = ([getattr(report, name) for report in state.reports] for name in ("chi_squared", "change"))
    assert chi[-1] < 0.05 * chi[0] and change[-1] < 0.2 * max(change)


def test_a_probe_from_a_wrong_start_is_refined(known):
    truth, scan, probe = known
    start = disk_probe(32, 8.0, defocus=11.0) * probe.abs().square().sum().sqrt()
    fixed = PIE(scan, start, alpha=0.1, probe_from=None).run(15)
    refined = PIE(scan, start, alpha=0.1).run(15)
    assert refined.reports[-1].chi_squared < 0.2 * fixed.reports[-1].chi_squared
    assert quality(LSQML(scan, start, batch=24).run(20), truth).amp_ssim > 0.95
    assert quality(refined, truth).amp_ssim > max(0.9, quality(fixed, truth).amp_ssim + 0.05)


def test_two_modes_need_two():
    truth = lines_object(90, 60, seed=1)
    probe = with_hermite_modes(disk_probe(32, 7.0, defocus=15.0), 2, share=0.2)
    scan, probe = simulate(truth, probe, raster_scan(11, 11, 4), photons=1e7, seed=2)
    both = MaximumLikelihood(scan, probe, probe_from=None, sweeps_planned=30).run(30)
    one = MaximumLikelihood(scan, probe[:1], probe_from=None, sweeps_planned=30).run(30)
    assert both.reports[-1].chi_squared < 0.1 * one.reports[-1].chi_squared
    assert quality(both, truth).complex_error < 0.3 * quality(one, truth).complex_error


def test_a_run_in_two_parts_is_the_whole(known):
    _, scan, probe = known
    whole = PIE(scan, probe, seed=5).run(4)
    parts = PIE(scan, probe, seed=5)
    parts.run(1)
    state = parts.run(3)
    assert torch.equal(whole.object, state.object) and torch.equal(whole.probe, state.probe)
    assert [report.sweep for report in state.reports] == [0, 1, 2, 3]


def test_beyond_its_plan_a_likelihood_goes_on_at_its_last_rate(known):
    truth, scan, probe = known
    run = MaximumLikelihood(scan, probe, probe_from=None, rate=0.05, sweeps_planned=10)
    planned = quality(run.run(10), truth).complex_error
    rate = run.optimizer.param_groups[0]["lr"]
    loss = [report.loss for report in run.run(20).reports]
    assert 0.005 < rate < 0.007 and run.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    assert max(loss[10:]) < loss[9] and loss[-1] < 0.8 * loss[9]
    assert quality(run.state, truth).complex_error < 0.8 * planned


@pytest.mark.parametrize("kind", ["amplitude", "poisson", "intensity", "amplitude_mae"])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_gradients_without_a_graph_are_those_with_one(known, kind, fraction):
    """Weights between 0 and 1, one for each pattern, a background, two modes."""
    truth, _, probe = known
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(40, 32, 32, generator=generator).round(decimals=1)
    positions = raster_scan(5, 8, 4) + fraction
    probe = with_hermite_modes(probe, 2, share=0.3)
    scan, probe = simulate(truth, probe, positions, background=torch.ones(32, 32), weight=weight)
    run = MaximumLikelihood(scan, 1.1 * probe, torch.ones_like(truth), kind=kind, probe_from=0)
    part = torch.randperm(40, generator=generator)[:33]
    found = run._objective(part)
    grads = [parameter.grad.clone() for parameter in run.parameters]
    object, unscaled = (parameter.detach().requires_grad_() for parameter in run.parameters)
    subpixel = "fourier" if fraction else "nearest"
    options = dict(weight=weight[part], background=scan.background, kind=kind, scale=run.scale, subpixel=subpixel)
    given = object, unscaled * run.unit, positions[part], scan.amplitudes[part]
    mean = ptychographic_loss(*given, **options).total / len(part)
    mean.backward()
    torch.testing.assert_close(found, mean.detach(), rtol=1e-5, atol=0)
    for ours, theirs in zip(grads, (object.grad, unscaled.grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_l_bfgs_is_one_of_the_optimizers(known):
    truth, scan, probe = known
    start = disk_probe(32, 8.0, defocus=11.0) * probe.abs().square().sum().sqrt()
    run = MaximumLikelihood(scan, start, optimizer=lbfgs)
    state = run.run(30)
    assert quality(state, truth).amp_ssim > 0.99 and state.reports[-1].chi_squared < 1.5
    assert run.batch == len(scan) and run.optimizer.param_groups[0]["lr"] == 1
    with pytest.raises(ValueError, match="batch: expected all 121 patterns, or None, since L-BFGS .* got 32"):
        MaximumLikelihood(scan, start, optimizer=lbfgs, batch=32)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_a_mini_batch_of_far_patterns_is_one_after_the_other(known, beta):
    """Patterns that do not overlap do not know of each other, while the probe stays."""
    _, scan, probe = known
    far = [0, 10, 110, 120]
    assert float((scan.positions[far[1]] - scan.positions[far[0]]).abs().max()) >= 32
    four = Scan(scan.amplitudes[far], scan.positions[far])
    singly, together = (PIE(four, probe, alpha=1.0, probe_from=None, batch=batch).run(3).object for batch in (1, 4))
    torch.testing.assert_close(together, singly, rtol=1e-4, atol=1e-4)


def test_mini_batches_give_the_object_and_the_probe(known):
    truth, scan, probe = known
    start = disk_probe(32, 8.0, defocus=11.0) * probe.abs().square().sum().sqrt()
    state = PIE(scan, start, alpha=0.1, batch=8).run(25)
    assert quality(state, truth).amp_ssim > 0.95
    for dtype in (torch.complex64, torch.complex128):
        double = PIE(scan, start.to(dtype), alpha=0.1, beta=0.5, batch=8, probe_from=0).run(2)
        assert double.object.dtype == double.probe.dtype == dtype
    single = PIE(scan, start, alpha=0.1, beta=0.5, batch=8, probe_from=0).run(2)
    assert float((single.object - double.object).abs().max()) < 1e-3


def test_positions_between_pixels(known):
    truth, _, _ = known
    positions = raster_scan(9, 9, 4).add(torch.rand(81, 2, generator=torch.Generator().manual_seed(0)) - 0.5)
    positions = positions - positions.amin(0) + 1
    scan, probe = simulate(truth, disk_probe(32, 7.0, defocus=15.0), positions, photons=1e7, seed=2)
    for engine in (PIE, MaximumLikelihood):
        planned = {} if engine is PIE else {"sweeps_planned": 30}
        state = engine(scan, probe, probe_from=None, **planned).run(30)
        assert quality(state, truth).amp_ssim > 0.98, engine
    rounded = Scan(scan.amplitudes, scan.positions.round())
    assert (
        quality(PIE(rounded, probe, probe_from=None).run(12), truth).complex_error
        > 2 * quality(state, truth).complex_error
    )


@pytest.mark.parametrize("beta", [1.0, 0.8])
def test_projections_refine_a_probe_between_pixels(known, beta):
    truth, _, _ = known
    generator = torch.Generator().manual_seed(0)
    positions = raster_scan(7, 7, 4) + torch.rand(49, 2, generator=generator)
    scan, probe = simulate(truth, disk_probe(32, 7.0, defocus=15.0), positions, photons=1e7, seed=2)
    state = Projections(scan, probe, beta=beta, probe_from=1).run(20)
    assert state.reports[-1].chi_squared < 0.05 * state.reports[0].chi_squared
    assert quality(state, truth).amp_ssim > 0.97


@pytest.mark.parametrize("engine", [PIE, Projections, MaximumLikelihood])
def test_scans_as_files_hold_them(known, engine):
    """Masks of booleans, positions in float64, unsigned counts, marks in dead pixels: what any numpy array may be."""
    _, scan, probe = known
    valid = torch.ones(32, 32, dtype=torch.bool)
    valid[3, 5] = False
    counts = scan.amplitudes.double().square().round()
    plain = Scan.from_counts(counts, scan.positions, valid.float(), torch.ones(32, 32))
    counts[:, 3, 5] = -1
    marked = Scan.from_counts(counts.int(), scan.positions.double(), valid, torch.ones(32, 32, dtype=torch.int64))
    counts[:, 3, 5] = 2**32 - 1
    saturated = Scan.from_counts(counts.to(torch.uint32), scan.positions, valid.double(), torch.ones(32, 32))
    states = [engine(given, probe, probe_from=1).run(2) for given in (plain, marked, saturated)]
    for state in states[1:]:
        assert torch.equal(state.object, states[0].object) and torch.equal(state.probe, states[0].probe)


def test_a_start_that_requires_gradients_is_a_start(known):
    _, scan, probe = known
    given = probe.clone().requires_grad_()
    for engine in (PIE, Projections, MaximumLikelihood):
        with torch.no_grad():
            plain = engine(scan, probe, probe_from=1).run(2)
        state = engine(scan, given, probe_from=1).run(2)
        assert torch.equal(state.object, plain.object) and not state.object.requires_grad, engine
        assert not state.probe.requires_grad, engine


def test_a_dark_part_of_the_object_leaves_the_probe_alone(known):
    _, scan, probe = known
    dark = torch.zeros(scan.object_shape(), dtype=torch.complex64)
    assert torch.equal(PIE(scan, probe, dark, object_step=0.0, probe_from=0).run(1).probe, probe)


def test_stops_when_asked(known):
    _, scan, probe = known
    seen = []
    state = PIE(scan, probe).run(10, stop=lambda reports: reports[-1].sweep == 2, progress=seen.append)
    assert len(state.reports) == 3 and seen == state.reports


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda scan, probe: PIE(scan, probe[0]), r"probe: expected complex \[M, 32, 32\]"),
        (lambda scan, probe: PIE(scan, probe, alpha=2.0), "alpha: expected a number > 0, at most 1, got 2.0"),
        (
            lambda scan, probe: PIE(scan, probe, torch.ones(40, 40, dtype=torch.complex64)),
            "corners: .* leaves the object",
        ),
        (lambda scan, probe: Projections(scan, probe, beta=0.0), "beta: expected a number > 0, at most 1, got 0.0"),
        (lambda scan, probe: Scan(scan.amplitudes, scan.positions[:3]), "positions: expected real"),
        (lambda scan, probe: Scan(scan.amplitudes, scan.positions / 0), "positions: expected finite numbers"),
        (
            lambda scan, probe: Scan.from_counts(-scan.amplitudes, scan.positions),
            "counts: expected finite numbers >= 0",
        ),
        (lambda scan, probe: Scan(-scan.amplitudes, scan.positions), "amplitudes: expected .* got -.* in pattern 0"),
        (lambda scan, probe: Scan(scan.amplitudes / 0, scan.positions), "amplitudes: expected .* got inf in pattern 0"),
        (lambda scan, probe: PIE(scan, 0 * probe), "probe: expected finite numbers that are not all 0"),
        (lambda scan, probe: PIE(scan, probe, torch.full((90, 90), torch.nan) + 0j), "object: expected finite numbers"),
        (lambda scan, probe: PIE(scan, probe, alpha=0.0), "alpha: expected a number > 0, at most 1, got 0.0"),
        (lambda scan, probe: MaximumLikelihood(scan, probe, kind="l2"), "kind: expected one of 'amplitude'"),
        (lambda scan, probe: MaximumLikelihood(scan, probe, batch=0), "batch: expected at least 1, got 0"),
        (lambda scan, probe: MaximumLikelihood(scan, probe, sweeps_planned=0), "sweeps_planned: expected at least 1"),
        (lambda scan, probe: simulate(torch.ones(40, 40) + 0j, probe[0], scan.positions), r"probe: expected shape \[M"),
        (
            lambda scan, probe: simulate(torch.ones(40, 40) + 0j, probe, scan.positions[:0]),
            r"positions: expected shape \[J, 2\], J >= 1, got \[0, 2\]",
        ),
        (
            lambda scan, probe: simulate(torch.ones(40, 40) + 0j, probe, scan.positions[:1], photons=0),
            "photons: expected",
        ),
    ],
)
def test_mistakes_are_named(known, call, message):
    _, scan, probe = known
    with pytest.raises(ValueError, match=message):
        call(scan, probe)


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_projections_say_how_much_memory_they_take(modes, fraction):
    truth = lines_object(90, 60, seed=1)
    probe = with_hermite_modes(disk_probe(32, 7.0, defocus=15.0), modes)
    scan, probe = simulate(truth, probe, raster_scan(10, 10, 4) + fraction)
    run = Projections(scan, probe, probe_from=0)
    run.run(1)
    with torch.profiler.profile(profile_memory=True) as profile:
        run.run(1)
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    most = 8 * scan.amplitudes.numel() * modes + max(itertools.accumulate(changes))  # the waves were there before
    assert 0.6 * Projections.memory(scan, modes) < most < 1.1 * Projections.memory(scan, modes)


@pytest.mark.parametrize("photons", [1e3, 1e4, 1e5, 1e7])
def test_a_perfect_fit_has_a_chi_squared_of_1_at_every_dose(photons):
    truth = lines_object(90, 60, seed=1)
    probe = disk_probe(32, 7.0, defocus=15.0)
    weight = torch.ones(32, 32)
    weight[3:9, 20:30] = 0
    background = torch.full((32, 32), 0.05)
    positions = raster_scan(11, 11, 4)
    scan, probe = simulate(truth, probe, positions, photons=photons, background=background, seed=2, weight=weight)
    kept = PIE(scan, probe, truth, object_step=0.0, probe_from=None).run(1)
    assert kept.reports[0].chi_squared == pytest.approx(1, abs=0.04)
    each = Scan(scan.amplitudes, positions, weight.expand(121, 32, 32).contiguous(), background)
    assert PIE(each, probe, truth, object_step=0.0).run(1).reports[0].chi_squared == kept.reports[0].chi_squared


def test_what_noise_makes_of_a_fit_has_the_right_mean_for_every_rate():
    """Against the sum over all counts of Poisson's law, in closed form."""
    n = torch.arange(300.0, dtype=torch.float64)
    rates = torch.logspace(-3, 2, 60, dtype=torch.float64)
    law = (n * rates.log().unsqueeze(1) - rates.unsqueeze(1) - torch.lgamma(n + 1)).exp()
    exact = (law * 4 * (rates.sqrt().unsqueeze(1) - n.sqrt()).square()).sum(1)
    values = torch.tensor(
        [_photon_noise(count.sqrt().view(1, 1, 1), torch.empty(0)) for count in n], dtype=torch.float64
    )
    assert bool(((law @ values - exact).abs() < 0.06 * (exact + 0.1)).all())
