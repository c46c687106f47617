import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sem.training.schedules import Schedule


def wsd(**changes):
    values = {
        "peak": 2.0,
        "kind": "wsd",
        "warmup_steps": 10,
        "max_steps": 100,
        "decay_steps": 20,
        "min_ratio": 0.1,
    }
    return Schedule(**(values | changes))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.2), (4, 1.0), (9, 2.0), (50, 2.0), (80, 2.0), (90, 1.1), (100, 0.2), (150, 0.2)],
)
def test_wsd_by_hand(step, expected):
    assert wsd().learning_rate(step) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(4, 1.0), (10, 2.0), (55, 1.1), (100, 0.2)])
def test_cosine_by_hand(step, expected):
    assert wsd(kind="cosine").learning_rate(step) == pytest.approx(expected)


def test_cosine_quarter():
    expected = 0.2 + 1.8 * 0.5 * (1 + math.cos(math.pi / 4))
    assert wsd(kind="cosine").learning_rate(10 + 90 // 4) == pytest.approx(expected, rel=0.02)


def test_no_warmup_and_no_decay_is_constant():
    schedule = wsd(warmup_steps=0, decay_steps=0)
    assert {schedule.learning_rate(step) for step in range(100)} == {2.0}


@pytest.mark.parametrize("kind", ["wsd", "cosine"])
@given(
    warmup=st.integers(0, 60),
    decay=st.integers(0, 60),
    max_steps=st.integers(1, 50),
    ratio=st.floats(0, 1),
)
def test_rises_then_falls_within_the_limits(kind, warmup, decay, max_steps, ratio):
    schedule = Schedule(
        peak=1.0, kind=kind, warmup_steps=warmup, max_steps=max_steps, decay_steps=decay, min_ratio=ratio
    )
    rates = [schedule.learning_rate(step) for step in range(max_steps)]
    assert all(0 < rate <= 1 or ratio == 0 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert all(a >= b - 1e-12 for a, b in zip(rates[top:], rates[top + 1 :], strict=False))


def test_time_is_ignored_without_a_limit():
    schedule = wsd()
    assert schedule.learning_rate(50, 1e9) == schedule.learning_rate(50)
    assert not schedule.finished(99, 1e9)
    assert schedule.finished(100, 0.0)


def test_time_limit_brings_the_decay_and_the_end():
    schedule = wsd(max_steps=1_000_000, decay_steps=200_000, max_minutes=10.0)
    assert schedule.learning_rate(500, 400.0) == pytest.approx(2.0)
    assert schedule.learning_rate(500, 540.0) == pytest.approx(1.1)
    assert schedule.learning_rate(500, 599.999) == pytest.approx(0.2, rel=1e-3)
    assert not schedule.finished(500, 599.0)
    assert schedule.finished(500, 600.0)


def test_steps_still_end_a_run_with_a_time_limit():
    assert wsd(max_minutes=10.0).learning_rate(90, 1.0) == pytest.approx(1.1)
    assert wsd(max_minutes=10.0).finished(100, 1.0)
