"""Constraints, penalties and momentum by what they do to a reconstruction."""

import pytest
import torch

from sem.ptycho import (
    LSQML,
    PIE,
    AmplitudeRange,
    MaximumLikelihood,
    OrthogonalModes,
    Penalty,
    PhaseOnly,
    ProbeCentred,
    ProbePower,
    ProbeSupport,
    Projections,
    SmoothUnlit,
    disk_probe,
    far_intensity,
    lines_object,
    raster_scan,
    scores,
    simulate,
    total_variation,
    with_hermite_modes,
)

ENGINES = [
    (PIE, dict(alpha=0.2)),
    (PIE, dict(alpha=0.2, batch=8)),
    (Projections, dict(beta=0.8)),
    (LSQML, dict(batch=24)),
    (MaximumLikelihood, dict(sweeps_planned=15)),
]
TRUTH = lines_object(90, 60, seed=1)
PHASE = torch.polar(torch.ones(90, 90), TRUTH.angle())
PROBE = disk_probe(32, 7.0, defocus=15.0)
POSITIONS = raster_scan(11, 11, 4)


def scanned(truth=TRUTH, photons=1e7, probe=PROBE):
    return simulate(truth, probe, POSITIONS, photons=photons, seed=2)


def quality(state, truth):
    shape = state.object.shape
    return scores(state.object, truth[: shape[0], : shape[1]], crop=16)


def middle(probe):
    power = probe.abs().square().sum(0)
    along = torch.arange(32.0) - 16
    return torch.stack([(power.sum(1) * along).sum(), (power.sum(0) * along).sum()]) / power.sum()


@pytest.mark.parametrize(("engine", "settings"), ENGINES)
def test_what_is_known_of_the_amplitude_takes_noise_away(engine, settings):
    scan, probe = scanned(PHASE, photons=3e3)
    free, phase_only, in_range = (
        engine(scan, probe, probe_from=None, constraints=constraints, **settings).run(15)
        for constraints in ((), [PhaseOnly()], [AmplitudeRange(0.9, 1.1)])
    )
    torch.testing.assert_close(phase_only.object.abs(), torch.ones(phase_only.object.shape))
    assert float(in_range.object.abs().min()) > 0.9 - 1e-6 and float(in_range.object.abs().max()) < 1.1 + 1e-6
    assert float(free.object.abs().max()) > 1.2
    errors = [quality(state, PHASE).complex_error for state in (phase_only, in_range, free)]
    assert errors[0] < 0.95 * errors[2] and errors[1] < 0.98 * errors[2], errors


def test_a_dark_pixel_has_an_amplitude_and_no_phase():
    engine = PIE(*scanned())
    object, _ = AmplitudeRange(0.5, 1.0)(engine, torch.tensor([[0j, 3j, 0.7 + 0j]]), engine.state.probe)
    torch.testing.assert_close(object, torch.tensor([[0.5 + 0j, 1j, 0.7 + 0j]]))


@pytest.mark.parametrize(("engine", "settings"), [ENGINES[0], ENGINES[2], ENGINES[3]])
def test_a_probe_stays_in_its_support_and_its_place(engine, settings):
    scan, probe = scanned()
    start = (disk_probe(32, 9.0, defocus=8.0) * probe.abs().square().sum().sqrt()).roll((3, -2), (-2, -1))
    free, held, centred = (
        engine(scan, start, constraints=constraints, **settings).run(20)
        for constraints in ((), [ProbeSupport(11.0)], [ProbeCentred()])
    )
    along = torch.arange(32) - 16
    outside = along.square().unsqueeze(1) + along.square() > 121
    assert bool((held.probe[:, outside] == 0).all()) and bool((free.probe[:, outside] != 0).any())
    assert float(middle(centred.probe).abs().max()) < 0.51 and float(middle(free.probe).abs().max()) > 1.5
    found = [quality(state, TRUTH).amp_ssim for state in (free, held, centred)]
    assert found[1] > found[0] + 0.1 and found[2] > found[0] + 0.2, found


def test_a_support_may_be_an_image():
    scan, probe = scanned()
    support = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
    state = PIE(scan, probe, probe_from=None, constraints=[ProbeSupport(support)]).run(1)
    torch.testing.assert_close(state.probe, probe * support)
    with pytest.raises(ValueError, match=r"support: expected real \[32, 32\], got \[16, 16\]"):
        PIE(scan, probe, constraints=[ProbeSupport(support[:16, :16])]).run(1)


@pytest.mark.parametrize(("engine", "settings"), ENGINES)
def test_a_change_of_gauge_changes_no_pattern(engine, settings):
    """Power, centre and modes: the next sweep meets the patterns that it would have met."""
    scan, probe = scanned(probe=with_hermite_modes(PROBE, 2, share=0.3))
    mixed = torch.einsum("mn,nyx->myx", torch.linalg.matrix_exp(torch.tensor([[0, 0.4], [-0.4, 0]])) + 0j, probe)
    kept = []
    engine(scan, mixed, constraints=[lambda *given: kept.append(given) or given[1:]], **settings).run(4)
    _, object, probe = kept[-1]
    run = engine(scan, mixed, **settings)
    run.run(4)
    expected = far_intensity(object, probe, scan.positions)
    for constraint in (ProbePower(1e5), OrthogonalModes()):
        changed = constraint(run, object, probe)
        torch.testing.assert_close(far_intensity(*changed, scan.positions), expected, rtol=1e-3, atol=1e-2)
    assert float(ProbePower(1e5)(run, object, probe)[1].abs().square().sum()) == pytest.approx(1e5, rel=1e-5)
    modes = OrthogonalModes()(run, object, probe)[1].flatten(1)
    assert float((modes[0].conj() * modes[1]).sum().abs()) < 1e-4 * float(modes.abs().square().sum())
    assert float(modes[0].norm()) > float(modes[1].norm())


def test_the_waves_of_a_difference_map_follow_a_change_of_gauge():
    scan, probe = scanned(probe=with_hermite_modes(PROBE, 2, share=0.3))
    mixed = torch.einsum("mn,nyx->myx", torch.linalg.matrix_exp(torch.tensor([[0, 0.4], [-0.4, 0]])) + 0j, probe)
    free = Projections(scan, mixed, probe_from=1).run(8)
    turned = Projections(scan, mixed, probe_from=1, constraints=[OrthogonalModes(), ProbePower(3e6)]).run(8)
    assert quality(turned, TRUTH).complex_error == pytest.approx(quality(free, TRUTH).complex_error, rel=1e-2)
    assert [r.chi_squared for r in turned.reports] == pytest.approx([r.chi_squared for r in free.reports], rel=1e-2)
    # a probe that moves by whole pixels takes its waves along
    engine = Projections(scan, probe.roll(3, -1), probe_from=None)
    engine.run(2)
    waves = engine.waves.clone()
    ProbeCentred()(engine, engine.state.object, engine.state.probe)
    torch.testing.assert_close(engine.waves, waves.roll(-3, -1), rtol=1e-4, atol=1e-3)


def test_what_no_pattern_sees_is_smoothed_and_the_rest_left_alone():
    scan, probe = scanned()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(90, 90, dtype=torch.complex64, generator=generator)
    free, smooth = (
        PIE(scan, probe, start, probe_from=None, seed=1, constraints=constraints).run(1)
        for constraints in ((), [SmoothUnlit(1e-3, 3.0)])
    )
    engine = PIE(scan, probe, start)
    light = engine.model.illumination(probe)
    by_hand = torch.zeros(90, 90)
    for y, x in scan.corners.tolist():
        by_hand[y : y + 32, x : x + 32] += probe[0].abs().square()
    torch.testing.assert_close(light, by_hand)
    unlit = light < 1e-3 * light.max()
    assert 100 < int(unlit.sum()) < 6000
    assert torch.equal(free.object[~unlit], smooth.object[~unlit])
    assert float(smooth.object[:4, :4].std()) < 0.3 * float(free.object[:4, :4].std())


def test_total_variation_makes_even_areas_even():
    generator = torch.Generator().manual_seed(0)
    image = torch.ones(90, 90)
    for _ in range(12):
        y, x = torch.randint(0, 80, (2,), generator=generator).tolist()
        image[y : y + 16, x : x + 20] = 0.4 + 0.6 * torch.rand(1, generator=generator)
    truth = torch.polar(image, 2 * (1 - image))
    scan, probe = scanned(truth, photons=3e3)
    plain, even = (
        MaximumLikelihood(scan, probe, probe_from=None, sweeps_planned=20, constraints=constraints).run(20)
        for constraints in ((), [Penalty(total_variation, 0.03)])
    )
    assert quality(even, truth).complex_error < 0.85 * quality(plain, truth).complex_error
    assert quality(even, truth).amp_ssim > quality(plain, truth).amp_ssim + 0.1
    assert total_variation(even.object) < 0.2 * total_variation(plain.object)
    nothing = MaximumLikelihood(
        scan, probe, probe_from=None, sweeps_planned=20, constraints=[Penalty(total_variation, 0)]
    )
    assert torch.equal(
        nothing.run(2).object, MaximumLikelihood(scan, probe, probe_from=None, sweeps_planned=20).run(2).object
    )


def test_total_variation_and_its_gradient():
    wave = torch.randn(5, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    by_hand = sum(
        (
            (abs(wave[y + 1, x] - wave[y, x]) ** 2 if y < 4 else 0)
            + (abs(wave[y, x + 1] - wave[y, x]) ** 2 if x < 5 else 0)
        )
        ** 0.5
        for y in range(5)
        for x in range(6)
        if (y, x) != (4, 5)
    )
    assert total_variation(wave, edge=1e-9).item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert torch.autograd.gradcheck(lambda o: total_variation(o, edge=0.1), wave)


def test_momentum_is_faster():
    scan, probe = scanned()
    plain = PIE(scan, probe, probe_from=None).run(8)
    moving = PIE(scan, probe, probe_from=None, momentum=0.3).run(8)
    assert quality(moving, TRUTH).complex_error < 0.75 * quality(plain, TRUTH).complex_error
    assert moving.reports[-1].chi_squared < 0.6 * plain.reports[-1].chi_squared


def test_constraints_come_in_order_after_every_sweep():
    scan, probe = scanned()
    called = []

    def note(name):
        def constraint(engine, object, probe):
            called.append((name, len(engine.state.reports)))
            return object * 2, probe

        return constraint

    run = PIE(scan, probe, probe_from=None, constraints=[note("first"), note("second")])
    plain = PIE(scan, probe, probe_from=None)
    assert torch.equal(run.run(1).object, 4 * plain.run(1).object)
    run.run(1)
    assert called == [("first", 0), ("second", 0), ("first", 1), ("second", 1)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda scan, probe: PIE(scan, probe, constraints=[Penalty(total_variation, 1.0)]), "PIE has no loss to add a"),
        (lambda scan, probe: LSQML(scan, probe, constraints=["tv"]), "constraints: expected functions .* got 'tv'"),
        (lambda scan, probe: AmplitudeRange(2.0, 1.0), "least, most: expected 0 <= least <= most, got 2.0 and 1.0"),
        (lambda scan, probe: ProbePower(0.0), "counts: expected a finite number > 0, got 0.0"),
        (lambda scan, probe: Penalty(total_variation, -1.0), "weight: expected a number >= 0, got -1.0"),
        (lambda scan, probe: PIE(scan, probe, momentum=-0.1), "momentum: expected a number >= 0, got -0.1"),
        (lambda scan, probe: PIE(scan, probe, friction=1.0), "friction: expected a number >= 0, below 1, got 1.0"),
        (lambda scan, probe: PIE(scan, probe, batch=0), "batch: expected at least 1, got 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*scanned())
