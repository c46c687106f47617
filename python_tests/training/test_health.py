import math

import pytest
from toy import HEALTHY

from sem.training.health import failures, finite, judge, wave_criteria


def failed(**changes):
    return [row.name for row in failures(judge(wave_criteria(), HEALTHY | changes))]


def test_healthy_figures_pass_every_row():
    rows = judge(wave_criteria(), HEALTHY)
    assert [row.name for row in rows] == [
        "unitary_divergence",
        "unitarity_deviation",
        "cg_residual",
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
    assert "phase_entropy" not in [criterion.name for criterion in wave_criteria(pit_enabled=False)]


def test_what_was_not_measured_fails():
    row = finite("loss").judge({})
    assert (row.passed, row.value, row.text) == (False, None, "not measured")
