"""state_space: accuracy against the float64 twin, gradients, and what a result may depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_problems import run, same_bits
from state_space_problems import NAMES, PER_ROW, SHARED, Problem, weights_for

from sem.ops import reference, state_space

SIZES = [
    (steps, *group)
    for steps in (0, 1, 2, 17, 64, 65, 257)
    for group in ((1, 1, 1), (3, 5, 1), (2, 16, 8), (2, 17, 9), (1, 33, 17), (4, 3, 5))
]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("steps, groups, states, width", SIZES)
def test_output_and_gradients_match_the_double_twin(steps, groups, states, width):
    problem = Problem.random(2, steps, groups, states, width)
    weights = weights_for(problem)
    outputs, grads = run(state_space, problem, weights)
    expected_outputs, expected_grads = run(reference.state_space, problem.double(), weights)
    for name, actual, expected in zip(("y", "final_state"), outputs, expected_outputs, strict=True):
        assert actual.dtype == torch.complex64 and relative_error(actual, expected) <= 2e-6, name
    for name, actual, expected in zip(NAMES, grads, expected_grads, strict=True):
        assert relative_error(actual, expected) <= 1e-5, name


@pytest.mark.parametrize(
    "dt, decay, frequency",
    [((1e-4, 1e-3), (0.1, 8), (-3, 3)), ((0.3, 2), (0.1, 8), (-3, 3)), ((1e-3, 0.3), (20, 400), (-3, 3))],
    ids=["tiny steps", "steps up to the model's clamp", "states that die at once"],
)
def test_accuracy_beyond_typical_ranges(dt, decay, frequency):
    problem = Problem.random(2, 257, 3, 11, 4)
    generator = torch.Generator().manual_seed(3)
    for name, (low, high) in {"dt_mag": dt, "dt_phase": dt, "decay": decay, "frequency": frequency}.items():
        drawn = torch.rand(getattr(problem, name).shape, generator=generator)
        problem = replace(problem, **{name: low + (high - low) * drawn})
    weights = weights_for(problem)
    outputs, grads = run(state_space, problem, weights)
    expected_outputs, expected_grads = run(reference.state_space, problem.double(), weights)
    assert max(map(relative_error, outputs, expected_outputs)) <= 2e-6
    assert max(map(relative_error, grads, expected_grads)) <= 1e-5


def test_no_initial_state_means_zeros():
    problem = Problem.random(2, 9, 5, 2, 3)
    zeros = replace(problem, initial_state=torch.zeros_like(problem.initial_state))
    assert same_bits(state_space(*problem.inputs()[:-1])[0], state_space(*zeros.inputs())[0])


def test_no_steps_return_the_initial_state_and_its_gradient():
    problem = Problem.random(2, 0, 1, 5, 3)
    weights = weights_for(problem)
    (y, final_state), grads = run(state_space, problem, weights)
    assert y.shape == (2, 0, 3) and same_bits(final_state, problem.initial_state)
    assert same_bits(grads[-1], weights[1]) and not any(grads[k].any() for k in SHARED)


def test_an_empty_batch_gives_nothing_and_zero_gradients():
    problem = Problem.random(0, 7, 2, 3, 4)
    (y, final_state), grads = run(state_space, problem, weights_for(problem))
    assert y.shape == (0, 7, 8) and final_state.shape == (0, 6)
    assert not any(grads[k].any() for k in SHARED)


def test_gradient_of_the_final_state_alone():
    problem = Problem.random(2, 70, 3, 2, 4).requiring_grad()
    twin = problem.double().requiring_grad()
    weight = weights_for(problem)[1]
    actual = torch.autograd.grad(state_space(*problem.inputs())[1], problem.inputs(), weight, materialize_grads=True)
    expected = torch.autograd.grad(
        reference.state_space(*twin.inputs())[1], twin.inputs(), weight.to(torch.complex128), materialize_grads=True
    )
    assert max(map(relative_error, actual, expected)) <= 1e-5


def test_twin_gradients_by_finite_differences():
    inputs = Problem.random(2, 4, 2, 3, 2).double().requiring_grad().inputs()
    assert torch.autograd.gradcheck(reference.state_space, inputs)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 150),
    cut=st.integers(0, 150),
    groups=st.integers(1, 3),
    states=st.integers(1, 20),
    width=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_two_halves_are_bit_equal_to_one_run(steps, cut, groups, states, width, seed):
    problem = Problem.random(2, steps, groups, states, width, seed)
    whole, final_state = state_space(*problem.inputs())
    first, handed_over = state_space(*problem.steps(slice(0, cut)).inputs())
    second, last = state_space(*replace(problem.steps(slice(cut, None)), initial_state=handed_over).inputs())
    assert same_bits(torch.cat([first, second], 1), whole) and same_bits(last, final_state)


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(2, 150), width=st.integers(1, 9), seed=st.integers(0, 99), data=st.data())
def test_later_inputs_do_not_change_earlier_outputs(steps, width, seed, data):
    problem = Problem.random(2, steps, 2, 5, width, seed)
    t = data.draw(st.integers(1, steps - 1))
    other = Problem.random(2, steps, 2, 5, width, seed + 100)
    changed = replace(
        problem,
        **{
            name: torch.cat([getattr(problem, name)[:, :t], getattr(other, name)[:, t:]], 1)
            for name in ("x", "dt_mag", "dt_phase")
        },
    )
    before, after = state_space(*problem.inputs())[0], state_space(*changed.inputs())[0]
    assert same_bits(before[:, :t], after[:, :t]) and not same_bits(before[:, t], after[:, t])


def test_bits_do_not_depend_on_the_batch_or_the_threads(threads):
    problem = Problem.random(37, 70, 2, 9, 5)
    weights = weights_for(problem)
    threads(1)
    outputs, grads = run(state_space, problem, weights)
    for count in (2, 3):
        threads(count)
        again_outputs, again_grads = run(state_space, problem, weights)
        assert all(map(same_bits, outputs + grads, again_outputs + again_grads))
    chosen = [33, 0, 5]
    some_outputs, some_grads = run(state_space, problem.rows(chosen), tuple(w[chosen] for w in weights))
    assert all(same_bits(full[chosen], part) for full, part in zip(outputs, some_outputs, strict=True))
    assert all(same_bits(grads[k][chosen], some_grads[k]) for k in PER_ROW)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_input_stays_in_its_row_and_group_and_later_times(value):
    problem = Problem.random(3, 80, 4, 7, 5)
    weights = weights_for(problem)
    clean, clean_grads = run(state_space, problem, weights)
    x = problem.x.clone()
    x[1, 67, 13] = complex(value, 0)
    (y, final_state), grads = run(state_space, replace(problem, x=x), weights)
    touched = torch.zeros(3, 80, 20, dtype=torch.bool)
    touched[1, 67:, 10:15] = True
    assert not torch.isfinite(torch.view_as_real(y[touched])).all(-1).any()
    assert same_bits(y[~touched], clean[0][~touched])
    outside = torch.ones(3, 80, 4, dtype=torch.bool)
    outside[1, 67:, 2] = False
    assert same_bits(grads[1][outside], clean_grads[1][outside])
    others = [0, 1, 3]
    for k in SHARED:
        by_group, clean_by_group = grads[k].reshape(4, -1), clean_grads[k].reshape(4, -1)
        assert same_bits(by_group[others], clean_by_group[others])
    assert not torch.isfinite(torch.view_as_real(grads[3][2])).all()


def test_a_phase_out_of_range_is_nan_not_noise():
    problem = Problem.random(1, 2, 2, 1, 2)
    y = state_space(*replace(problem, frequency=torch.tensor([1.0, 1e9])).inputs())[0]
    assert torch.isfinite(torch.view_as_real(y[..., :2])).all() and torch.isnan(y[..., 2:].real).all()
