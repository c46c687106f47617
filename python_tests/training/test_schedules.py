import itertools
import math
import types
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sem.optimization_settings import OptimizationSettings, ScheduleName
from sem.training.schedules import START, Plateau, Schedule, build_schedule

KINDS = get_args(ScheduleName)


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


@pytest.mark.parametrize("kind", KINDS)
@given(
    warmup=st.integers(0, 60),
    decay=st.integers(0, 60),
    max_steps=st.integers(1, 50),
    ratio=st.floats(0, 1),
    interval=st.integers(1, 20),
)
def test_rises_then_falls_within_the_limits(kind, warmup, decay, max_steps, ratio, interval):
    schedule = Schedule(
        peak=1.0,
        kind=kind,
        warmup_steps=warmup,
        max_steps=max_steps,
        decay_steps=decay,
        min_ratio=ratio,
        interval=interval,
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


@pytest.mark.parametrize("step", [0, 4, 9, 10, 55, 99])
def test_warmup_cosine_by_its_formula(step):
    expected = 0.1 + 0.9 * step / 10 if step < 10 else 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2
    assert wsd(kind="warmup_cosine").learning_rate(step) == pytest.approx(2 * expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["constant", "exponential", "plateau"])
def test_the_others_have_the_linear_warmup_of_wsd(kind):
    schedule = wsd(kind=kind, gamma=1.0)
    assert [schedule.learning_rate(step) for step in range(12)] == [wsd().learning_rate(step) for step in range(12)]


@pytest.mark.parametrize(("step", "factors"), [(0, 0), (6, 0), (7, 1), (20, 2), (21, 3), (99, 14)])
def test_exponential_loses_a_factor_per_interval(step, factors):
    schedule = wsd(kind="exponential", warmup_steps=0, interval=7, gamma=0.9)
    assert schedule.learning_rate(step) == pytest.approx(2 * 0.9**factors, rel=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "warmup_cosine", "wsd"])
def test_the_decay_changes_once_per_interval_and_the_warmup_at_every_step(kind):
    shape = {"kind": kind, "warmup_steps": 8, "decay_steps": 92}
    by_step, by_interval = wsd(**shape), wsd(**shape, interval=4)
    rates = [by_interval.learning_rate(step) for step in range(100)]
    assert len(set(rates[:8])) == 8 and len(set(rates[8:])) == 23
    assert rates[8::4] == [by_step.learning_rate(step) for step in range(8, 100, 4)]


FORMER = {
    ("wsd", None): "167830373ccbdcp-13 13a92a30553261p-10 13a92a30553261p-10 13a92a30553261p-10 103c6b82c0934ep-10",
    ("wsd", 0.5): "167830373ccbdcp-13 13a92a30553261p-10 13a92a30553261p-10 113867260a02a0p-11 10b91cd0ea314fp-12",
    ("cosine", None): "167830373ccbdcp-13 13a92a30553261p-10 1cd2efc3a98abbp-11 1aa3b14f8c3caep-12 14818076c52af6p-12",
    ("cosine", 0.5): "167830373ccbdcp-13 13a85e2a54c7b4p-10 15caa57b61c53cp-11 157dbbb13e836fp-13 106076850ccb8fp-13",
}
"""What the two schedules that there were first gave, to the last bit."""


@pytest.mark.parametrize(("kind", "minutes"), FORMER)
def test_the_first_two_are_what_they_were(kind, minutes):
    schedule = Schedule(
        peak=1.2e-3, kind=kind, warmup_steps=7, max_steps=97, decay_steps=31, min_ratio=0.1, max_minutes=minutes
    )
    expected = [float.fromhex(f"0x1.{digits[1:]}") for digits in FORMER[kind, minutes].split()]
    found = [schedule.learning_rate(step, 0.4 * step) for step in (0, 6, 40, 66, 72)]
    assert found == pytest.approx(expected, rel=1e-15)  # cosines of other machines may differ in the last bit


@pytest.mark.parametrize("kind", ["constant", "exponential"])
def test_time_has_no_part_in_what_ends_nowhere(kind):
    schedule = wsd(kind=kind, max_minutes=1.0)
    assert schedule.learning_rate(50, 59.0) == schedule.learning_rate(50)
    assert schedule.finished(50, 60.0)


def followed(schedule, losses):
    plateau = START
    for loss in losses:
        plateau = schedule.after_validation(plateau, {"val_loss": loss})
        yield plateau


def test_plateau_by_hand():
    schedule = wsd(kind="plateau", warmup_steps=0, plateau_patience=1, plateau_factor=0.5, plateau_floor=0.3)
    losses = [3.0, 2.0, 2.0, 2.5, 2.0, 1.9, 2.0, math.nan, 5.0, math.inf, 1.0, 2.0, 2.0]
    found = list(followed(schedule, losses))
    assert [plateau.bad for plateau in found] == [0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1, 0]
    rates = [schedule.learning_rate(50, 0.0, plateau) for plateau in found]
    assert rates == pytest.approx([2.0] * 3 + [1.0] * 4 + [0.5] * 2 + [0.3] * 4)
    assert [plateau.best for plateau in found] == [3.0, *[2.0] * 4, *[1.9] * 5, *[1.0] * 3]


@settings(deadline=None)  # the first example pays for what torch loads
@given(
    losses=st.lists(st.floats(0, 5), max_size=40),
    patience=st.integers(0, 4),
    factor=st.floats(0.1, 0.9),
    floor=st.sampled_from([0.0, 1e-3, 0.5, 3.0]),
)
def test_plateau_does_what_torchs_does(losses, patience, factor, floor):
    schedule = wsd(
        kind="plateau", warmup_steps=0, plateau_patience=patience, plateau_factor=factor, plateau_floor=floor
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=0.0, min_lr=min(floor, 2.0), eps=0.0
    )
    for loss, plateau in zip(losses, followed(schedule, losses), strict=True):
        torchs.step(loss)
        assert schedule.learning_rate(0, 0.0, plateau) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_only_plateau_follows_validations():
    for kind in KINDS:
        schedule = wsd(kind=kind, plateau_patience=0)
        after = schedule.after_validation(Plateau(best=0.0), {"val_loss": 1.0})
        assert (after.scale < 1) == (kind == "plateau")
        lower = schedule.learning_rate(50, 0.0, Plateau(scale=0.25)) < schedule.learning_rate(50)
        assert lower == (kind == "plateau")
    with pytest.raises(ValueError, match=r"expected 'val_loss', which plateau follows, among its figures \['val_x'\]"):
        wsd(kind="plateau").after_validation(START, {"val_x": 1.0})
    with pytest.raises(ValueError, match="scheduler = 'plateau': expected a run with validations"):
        wsd(kind="plateau").require_validation(False)


def test_a_plateau_never_comes_to_nothing():
    schedule = wsd(kind="plateau", plateau_patience=0, plateau_floor=0.0)
    *_, last = followed(schedule, [1.0] * 3000)
    assert 0 < schedule.learning_rate(50, 0.0, last) < 1e-11


@pytest.mark.parametrize(
    "values", [{"best": math.nan}, {"best": "1"}, {"bad": -1}, {"bad": 0.5}, {"scale": 0.0}, {"scale": 2.0}]
)
def test_a_plateau_that_no_run_leaves_is_refused(values):
    with pytest.raises(ValueError, match="plateau: expected a loss, a count and a share"):
        Plateau(**values)


def test_an_unknown_schedule_is_an_error_however_it_is_named():
    words = "expected one of constant, cosine, warmup_cosine, wsd, exponential, plateau"
    with pytest.raises(ValueError, match=f"optimization.scheduler = 'linear': {words}"):
        OptimizationSettings(scheduler="linear")
    with pytest.raises(ValueError, match=f"scheduler = 'linear': {words}"):
        wsd(kind="linear")
    names = OptimizationSettings().to_mapping()
    with pytest.raises(ValueError, match=f"scheduler = 'linear': {words}"):
        build_schedule(types.SimpleNamespace(**names | {"scheduler": "linear"}))


def test_schedules_differ():
    schedules = [wsd(kind=kind, warmup_steps=7) for kind in KINDS]
    plateau = Plateau(scale=0.75)
    rates = [[schedule.learning_rate(step, 0.0, plateau) for step in range(100)] for schedule in schedules]
    assert all(one != other for one, other in itertools.combinations(rates, 2))
