"""scan: accuracy against the float64 twin, gradients, and what a result may depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_problems import NAMES, Problem, run, same_bits, weights_for

from sem.ops import reference, scan

SIZES = [
    (steps, channels, groups)
    for steps in (0, 1, 2, 17, 257, 1000)
    for channels, groups in (
        (1, 1),
        (3, 1),
        (3, 3),
        (16, 4),
        (17, 17),
        (64, 4),
        (130, 1),
        (130, 13),
        (130, 130),
    )
]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("steps, channels, groups", SIZES)
def test_states_and_gradients_match_the_double_twin(steps, channels, groups):
    problem = Problem.random(2, steps, channels, groups)
    weights = weights_for(problem)
    outputs, grads = run(scan, problem, weights)
    expected_outputs, expected_grads = run(reference.scan, problem.double(), weights)
    for name, actual, expected in zip(("states", "final_state"), outputs, expected_outputs, strict=True):
        assert actual.dtype == torch.complex64 and relative_error(actual, expected) <= 2e-6, name
    for name, actual, expected in zip(NAMES, grads, expected_grads, strict=True):
        assert relative_error(actual, expected) <= 1e-5, name


@pytest.mark.parametrize(
    "dt, decay, frequency",
    [((1e-4, 1e-3), (0.1, 8), (-3, 3)), ((0.3, 2), (0.1, 8), (-3, 3)), ((1e-3, 0.3), (20, 400), (-3, 3))],
    ids=["tiny steps", "steps up to the model's clamp", "states that die at once"],
)
def test_accuracy_beyond_typical_ranges(dt, decay, frequency):
    problem = Problem.random(2, 257, 33, 3)
    generator = torch.Generator().manual_seed(3)
    for name, (low, high) in {"dt_mag": dt, "dt_phase": dt, "decay": decay, "frequency": frequency}.items():
        drawn = torch.rand(getattr(problem, name).shape, generator=generator)
        problem = replace(problem, **{name: low + (high - low) * drawn})
    weights = weights_for(problem)
    outputs, grads = run(scan, problem, weights)
    expected_outputs, expected_grads = run(reference.scan, problem.double(), weights)
    assert max(map(relative_error, outputs, expected_outputs)) <= 2e-6
    assert max(map(relative_error, grads, expected_grads)) <= 1e-5


def test_one_step_by_hand():
    # exp(-1 * ln 2) = 1/2 and a quarter turn: A = i/2, so h = i/2 * 4 + 1 * (1 + 1j)
    one = torch.ones(1, 1, 1)
    states, final_state = scan(
        torch.tensor([[[1 + 1j]]]),
        one,
        one,
        torch.tensor([math.log(2)]),
        torch.tensor([math.pi / 2]),
        torch.tensor([[4 + 0j]]),
    )
    assert torch.allclose(states, torch.tensor([[[1 + 3j]]])) and torch.equal(final_state, states[:, -1])


def test_no_initial_state_means_zeros():
    problem = Problem.random(2, 9, 5, 5)
    zeros = replace(problem, initial_state=torch.zeros_like(problem.initial_state))
    assert same_bits(scan(*problem.inputs()[:-1])[0], scan(*zeros.inputs())[0])


def test_no_steps_return_the_initial_state_and_its_gradient():
    problem = Problem.random(2, 0, 5, 1)
    weights = weights_for(problem)
    (states, final_state), grads = run(scan, problem, weights)
    assert states.shape == (2, 0, 5) and same_bits(final_state, problem.initial_state)
    assert same_bits(grads[5], weights[1]) and not grads[3].any()


def test_an_empty_batch_gives_empty_states_and_zero_gradients():
    problem = Problem.random(0, 7, 6, 2)
    (states, final_state), grads = run(scan, problem, weights_for(problem))
    assert states.shape == (0, 7, 6) and final_state.shape == (0, 6)
    assert torch.equal(grads[3], torch.zeros(6)) and torch.equal(grads[4], torch.zeros(6))


def test_gradient_of_the_final_state_alone():
    problem = Problem.random(2, 20, 6, 3).requiring_grad()
    twin = problem.double().requiring_grad()
    weight = weights_for(problem)[1]
    actual = torch.autograd.grad(scan(*problem.inputs())[1], problem.inputs(), weight)
    expected = torch.autograd.grad(reference.scan(*twin.inputs())[1], twin.inputs(), weight.to(torch.complex128))
    assert max(map(relative_error, actual, expected)) <= 1e-5


def test_twin_gradients_by_finite_differences():
    inputs = Problem.random(2, 4, 4, 2).double().requiring_grad().inputs()
    assert torch.autograd.gradcheck(reference.scan, inputs)
    assert torch.autograd.gradgradcheck(reference.scan, inputs)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 40),
    cut=st.integers(0, 40),
    groups=st.integers(1, 5),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_two_halves_are_bit_equal_to_one_run(steps, cut, groups, width, seed):
    problem = Problem.random(2, steps, groups * width, groups, seed)
    whole, final_state = scan(*problem.inputs())
    first, handed_over = scan(*problem.steps(slice(0, cut)).inputs())
    second, last = scan(*replace(problem.steps(slice(cut, None)), initial_state=handed_over).inputs())
    assert same_bits(torch.cat([first, second], 1), whole) and same_bits(last, final_state)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(2, 40),
    groups=st.integers(1, 5),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_later_inputs_do_not_change_earlier_states(steps, groups, width, seed, data):
    problem = Problem.random(2, steps, groups * width, groups, seed)
    t = data.draw(st.integers(1, steps - 1))
    other = Problem.random(2, steps, groups * width, groups, seed + 100)
    changed = replace(
        problem,
        **{
            name: torch.cat([getattr(problem, name)[:, :t], getattr(other, name)[:, t:]], 1)
            for name in ("x", "dt_mag", "dt_phase")
        },
    )
    before, after = scan(*problem.inputs())[0], scan(*changed.inputs())[0]
    assert same_bits(before[:, :t], after[:, :t]) and not same_bits(before[:, t], after[:, t])


@settings(max_examples=25, deadline=None)
@given(channels=st.integers(1, 40), seed=st.integers(0, 99), scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_linear_in_input_and_initial_state(channels, seed, scale):
    """Powers of two scale without rounding."""
    problem = Problem.random(1, 12, channels, 1, seed)
    scaled = replace(problem, x=problem.x * scale, initial_state=problem.initial_state * scale)
    assert same_bits(scan(*scaled.inputs())[0], scan(*problem.inputs())[0] * scale)


def test_bits_do_not_depend_on_the_batch_or_the_threads(threads):
    problem = Problem.random(5, 33, 130, 13)
    weights = weights_for(problem)
    threads(1)
    outputs, grads = run(scan, problem, weights)
    for count in (2, 3):
        threads(count)
        again_outputs, again_grads = run(scan, problem, weights)
        assert all(map(same_bits, outputs + grads, again_outputs + again_grads))
    chosen = [3, 0]
    some_outputs, some_grads = run(scan, problem.rows(chosen), tuple(w[chosen] for w in weights))
    per_row = [0, 1, 2, 5]
    assert all(same_bits(full[chosen], part) for full, part in zip(outputs, some_outputs, strict=True))
    assert all(same_bits(grads[k][chosen], some_grads[k]) for k in per_row)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_input_stays_in_its_row_and_channel_and_later_times(value):
    problem = Problem.random(3, 20, 40, 8)
    weights = weights_for(problem)
    clean, clean_grads = run(scan, problem, weights)
    x = problem.x.clone()
    x[1, 7, 18] = complex(value, 0)
    (states, final_state), grads = run(scan, replace(problem, x=x), weights)
    touched = torch.zeros(3, 20, 40, dtype=torch.bool)
    touched[1, 7:, 18] = True
    assert not torch.isfinite(torch.view_as_real(states[touched])).all(-1).any()
    assert same_bits(states[~touched], clean[0][~touched])
    assert torch.isnan(grads[3][18]) if math.isnan(value) else not torch.isfinite(grads[3][18])
    others = torch.arange(40) != 18
    assert same_bits(grads[3][others], clean_grads[3][others])
    outside = torch.ones(3, 20, 8, dtype=torch.bool)
    outside[1, 7:, 18 // 5] = False
    assert same_bits(grads[1][outside], clean_grads[1][outside])


def test_nan_time_step_stays_in_its_group():
    problem = Problem.random(2, 10, 24, 4)
    clean = scan(*problem.inputs())[0]
    dt_mag = problem.dt_mag.clone()
    dt_mag[0, 3, 2] = math.nan
    states = scan(*replace(problem, dt_mag=dt_mag).inputs())[0]
    touched = torch.zeros(2, 10, 24, dtype=torch.bool)
    touched[0, 3:, 12:18] = True
    assert torch.isnan(torch.view_as_real(states[touched])).all() and same_bits(states[~touched], clean[~touched])


def test_a_phase_out_of_range_is_nan_not_noise():
    problem = Problem.random(1, 2, 2, 1)
    states = scan(*replace(problem, frequency=torch.tensor([1.0, 1e9])).inputs())[0]
    assert torch.isfinite(torch.view_as_real(states[..., 0])).all() and torch.isnan(states[..., 1].real).all()


def test_no_state_grows_without_input():
    steps, channels = 5000, 16
    zeros = torch.zeros(1, steps, channels, dtype=torch.complex64)
    start = torch.ones(1, channels, dtype=torch.complex64)
    frequency = torch.linspace(-3, 3, channels)
    one = torch.ones(1, steps, 1)
    states, _ = scan(zeros, 1e-4 * one, one, torch.full((channels,), 1e-6), frequency, start)
    assert float(states.abs().max()) <= 1 + 1e-5


def test_zero_steps_pass_the_state_on():
    problem = Problem.random(2, 30, 7, 1)
    still = replace(problem, dt_mag=torch.zeros_like(problem.dt_mag), dt_phase=torch.zeros_like(problem.dt_phase))
    assert torch.equal(scan(*still.inputs())[1], problem.initial_state)
