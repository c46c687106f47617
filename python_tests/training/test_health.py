import math

import pytest
from toy import HEALTHY

from sem.config import SEMConfig
from sem.training.health import above, below, failures, finite, judge, rises, wave_criteria

WHOLE = SEMConfig().with_overrides("encoder.kind=transport", "propagator.pit_enabled=true")
"""With everything that has a criterion."""


def failed(**changes):
    return [row.name for row in failures(judge(wave_criteria(WHOLE, thorough=True), HEALTHY | changes))]


def test_healthy_figures_pass_every_row():
    rows = judge(wave_criteria(WHOLE, thorough=True), HEALTHY)
    assert [row.name for row in rows] == [
        "unitary_divergence",
        "unitarity_deviation",
        "cg_residual",
        "cg_true_residual",
        "sdr_sparsity",
        "phase_coherence",
        "phase_entropy",
    ]
    assert all(row.passed for row in rows)


@pytest.mark.parametrize(
    ("name", "limit", "step"),
    [
        ("unitary_divergence", 2.0, 1),
        ("unitarity_deviation", 1e-4, 1),
        ("cg_residual", 1e-4, 1),
        ("cg_true_residual", 1e-4, 1),
        ("sdr_sparsity", 0.3, -1),
        ("phase_coherence", 0.95, 1),
    ],
)
def test_each_limit_is_strict(name, limit, step):
    assert failed(**{name: limit}) == [name]
    assert failed(**{name: limit * (1 - 0.01 * step)}) == []
    assert failed(**{name: limit * (1 + 0.01 * step)}) == [name]


@pytest.mark.parametrize("name", sorted(HEALTHY.keys() - {"cg_iterations_mean", "cg_iterations_max"}))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_fails(name, value):
    expected = "phase_entropy" if name.startswith("phase_entropy") else name
    assert failed(**{name: value}) == [expected]


def test_entropy_must_not_fall():
    assert failed(phase_entropy_before=0.9, phase_entropy_after=0.8999) == ["phase_entropy"]
    assert failed(phase_entropy_before=0.9, phase_entropy_after=0.9) == []


def test_what_a_model_does_not_have_is_not_asked_of_it():
    names = [criterion.name for criterion in wave_criteria(SEMConfig())]
    assert names == ["unitary_divergence", "unitarity_deviation", "cg_residual", "phase_coherence"]
    names = [criterion.name for criterion in wave_criteria(SEMConfig().with_overrides("propagator.num_layers=0"))]
    assert names == ["unitary_divergence"]


def test_what_was_not_measured_fails():
    row = finite("loss").judge({})
    assert (row.passed, row.value, row.text) == (False, None, "not measured")


def steps(name, *values):
    return [{"step": 10 * number, name: value} for number, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("criterion", "values", "worst", "step", "passed"),
    [
        (below("q", 1.0), (0.1, 0.9, 0.3), 0.9, 20, True),
        (below("q", 1.0), (0.1, 1.0, 0.3), 1.0, 20, False),
        (above("q", 1.0), (3.0, 1.5, 2.0), 1.5, 20, True),
        (above("q", 1.0), (3.0, 2.0, 0.5), 0.5, 30, False),
        (finite("q"), (3.0, -2.0, 4.0), 4.0, 30, True),
        (below("q", 1.0), (2.0, math.inf, 3.0), math.inf, 20, False),
    ],
)
def test_a_run_is_judged_by_its_worst_step(criterion, values, worst, step, passed):
    row = criterion.judge_run(steps("q", *values))
    assert (row.worst, row.step, row.passed) == (worst, step, passed)
    assert (row.first, row.last) == (values[0], values[-1])
    assert row.mean == pytest.approx(sum(values) / 3) or math.isinf(worst)


def test_nan_is_worse_than_any_number():
    row = below("q", 1.0).judge_run(steps("q", 5.0, math.nan, 9.0))
    assert math.isnan(row.worst) and math.isnan(row.mean)
    assert (row.step, row.passed, row.text) == (20, False, "nan at step 20")


def test_steps_that_did_not_measure_a_quantity_are_passed_over():
    measured = [{"step": 1, "q": 0.5}, {"step": 2}, {"step": 3, "q": 0.7}]
    row = below("q", 1.0).judge_run(measured)
    assert (row.passed, row.worst, row.mean) == (True, 0.7, 0.6)
    row = below("other", 1.0).judge_run(measured)
    assert (row.passed, row.worst, row.text) == (False, None, "not measured")


def test_the_worst_rise_is_the_smallest():
    before_and_after = [{"step": step, "b": 0.5, "a": 0.5 + rise} for step, rise in ((1, 0.2), (2, -0.1), (3, 0.3))]
    row = rises("entropy", "b", "a").judge_run(before_and_after)
    assert (row.step, row.passed) == (2, False)
    assert row.worst == pytest.approx(-0.1)
