"""When runs end."""

import pytest

from sem.ptycho import (
    PIE,
    MaximumLikelihood,
    SweepReport,
    after_seconds,
    after_sweeps,
    any_of,
    disk_probe,
    fits_noise,
    lines_object,
    plateau,
    raster_scan,
    simulate,
)


@pytest.fixture(scope="module")
def given():
    return simulate(lines_object(60, 40, seed=1), disk_probe(24, 5.0, defocus=9.0), raster_scan(9, 9, 3), photons=1e5)


def test_sweeps_count_over_runs(given):
    engine = PIE(*given, probe_from=None)
    assert len(engine.run(10, stop=after_sweeps(3)).reports) == 3
    assert len(engine.run(10, stop=after_sweeps(5)).reports) == 5


def test_seconds(given):
    engine = PIE(*given, probe_from=None)
    reports = engine.run(1000, stop=after_seconds(0.1)).reports
    assert 1 < len(reports) < 1000 and reports[-2].seconds < 0.1 <= reports[-1].seconds
    sweeps = len(reports)
    assert len(engine.run(10, stop=after_seconds(0.05)).reports) == sweeps + 1


def test_a_run_ends_where_it_fits_the_noise(given):
    run = MaximumLikelihood(*given, probe_from=None, sweeps_planned=20)
    chi = [report.chi_squared for report in run.run(60, stop=fits_noise()).reports]
    assert 3 < len(chi) < 30 and chi[-1] <= 1 < chi[-2]


def test_a_run_ends_on_a_plateau_and_so_does_the_resumed_one(given):
    def begun():
        return MaximumLikelihood(*given, probe_from=None, sweeps_planned=15)

    stop = plateau(sweeps=4, share=0.03)
    whole = begun().run(100, stop=stop)
    assert 6 < len(whole.reports) < 40
    loss = [report.loss for report in whole.reports]
    assert min(loss[-4:]) > 0.97 * min(loss[:-4]) and min(loss[-5:-1]) <= 0.97 * min(loss[:-5])
    parts = begun()
    parts.run(len(whole.reports) - 2)
    assert len(parts.run(100, stop=stop).reports) == len(whole.reports)


def test_several():
    reports = [SweepReport(k, 1.0, 2.0 - k, 1.0, float(k)) for k in range(3)]
    stop = any_of(fits_noise(1.0), after_seconds(10))
    assert [stop(reports[: k + 1]) for k in range(3)] == [False, True, True]
    assert not any_of()(reports)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: after_sweeps(0), "sweeps: expected at least 1, got 0"),
        (lambda: after_seconds(-1.0), "seconds: expected a number >= 0, got -1.0"),
        (lambda: fits_noise(0.0), "chi_squared: expected a number > 0, got 0.0"),
        (lambda: plateau(share=1.0), "share: expected a number >= 0, below 1, got 1.0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
