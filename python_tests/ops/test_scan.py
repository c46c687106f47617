"""scan: accuracy against the float64 twin, gradients, independence of rows, and the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sem.ops import reference
from sem.ops.scan import scan, scan_backward, scan_forward

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


@dataclass
class Problem:
    x: Tensor
    dt_mag: Tensor
    dt_phase: Tensor
    decay: Tensor
    frequency: Tensor
    initial_state: Tensor

    @classmethod
    def random(cls, batch: int, steps: int, channels: int, groups: int, seed: int = 0) -> Problem:
        """dt log-uniform in [1e-3, 0.3], decay in [0.1, 8], frequency in [-pi, pi]."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.complex64, generator=generator)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(*shape, generator=generator)

        dt = uniform(math.log(1e-3), math.log(0.3), 2, batch, steps, groups).exp()
        return cls(
            normal(batch, steps, channels),
            dt[0].contiguous(),
            dt[1].contiguous(),
            uniform(0.1, 8, channels),
            uniform(-math.pi, math.pi, channels),
            normal(batch, channels),
        )

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def double(self) -> Problem:
        return Problem(*(t.to(torch.complex128 if t.is_complex() else torch.float64) for t in self.inputs()))

    def requiring_grad(self) -> Problem:
        return Problem(*(t.detach().clone().requires_grad_() for t in self.inputs()))

    def rows(self, chosen: slice | list[int]) -> Problem:
        return Problem(
            self.x[chosen],
            self.dt_mag[chosen],
            self.dt_phase[chosen],
            self.decay,
            self.frequency,
            self.initial_state[chosen],
        )

    def steps(self, chosen: slice) -> Problem:
        return replace(
            self, x=self.x[:, chosen], dt_mag=self.dt_mag[:, chosen], dt_phase=self.dt_phase[:, chosen]
        )


NAMES = [field.name for field in fields(Problem)]


def weights_for(problem: Problem, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random gradients to the states and to the final state."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(t.shape, dtype=torch.complex64, generator=generator)
        for t in (problem.x, problem.initial_state)
    )


def run(
    function, problem: Problem, weights: tuple[Tensor, Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Outputs, and the gradients of ``Re <weights, outputs>`` to every input."""
    problem = problem.requiring_grad()
    outputs = function(*problem.inputs())
    cotangents = [weight.to(output.dtype) for weight, output in zip(weights, outputs, strict=True)]
    return outputs, torch.autograd.grad(outputs, problem.inputs(), cotangents, materialize_grads=True)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.detach(), expected.detach()
    norm = float(expected.norm())
    difference = float((actual.to(expected.dtype) - expected).norm())
    return difference / norm if norm else difference


def same_bits(first: Tensor, second: Tensor) -> bool:
    def integers(tensor: Tensor) -> Tensor:
        real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
        return real.contiguous().view(torch.int32)

    return torch.equal(integers(first), integers(second))


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
    expected = torch.autograd.grad(
        reference.scan(*twin.inputs())[1], twin.inputs(), weight.to(torch.complex128)
    )
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
    assert torch.isnan(torch.view_as_real(states[touched])).all() and same_bits(
        states[~touched], clean[~touched]
    )


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
    still = replace(
        problem, dt_mag=torch.zeros_like(problem.dt_mag), dt_phase=torch.zeros_like(problem.dt_phase)
    )
    assert torch.equal(scan(*still.inputs())[1], problem.initial_state)


def native_arguments(batch: int = 2, steps: int = 5, channels: int = 6, groups: int = 3) -> list[Tensor]:
    inputs = Problem.random(batch, steps, channels, groups).inputs()
    return [torch.view_as_real(t).contiguous() if t.is_complex() else t for t in inputs]


@pytest.mark.parametrize("steps", [0, 5])
def test_opcheck(steps):
    arguments = native_arguments(steps=steps)
    torch.library.opcheck(scan_forward, tuple(arguments))
    states, final_state = scan_forward(*arguments)
    torch.library.opcheck(scan_backward, (states, final_state, *arguments, states))


def test_compiles_without_graph_breaks():
    def objective(*inputs: Tensor) -> Tensor:
        states, final_state = scan(*inputs)
        return torch.view_as_real(states).square().sum() + torch.view_as_real(final_state).sum()

    eager, compiled = Problem.random(2, 9, 6, 2).requiring_grad(), Problem.random(2, 9, 6, 2).requiring_grad()
    objective(*eager.inputs()).backward()
    torch.compile(objective, fullgraph=True, backend="aot_eager")(*compiled.inputs()).backward()
    for a, b in zip(eager.inputs(), compiled.inputs(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-6, atol=1e-7)


def test_functional_gradient_and_vmap_over_every_input():
    problems = [Problem.random(2, 9, 6, 2, seed) for seed in range(3)]
    stacked = tuple(torch.stack(parts) for parts in zip(*(p.inputs() for p in problems), strict=True))

    def objective(
        dt_mag: Tensor, x: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor, state: Tensor
    ) -> Tensor:
        return torch.view_as_real(scan(x, dt_mag, dt_phase, decay, frequency, state)[0]).square().sum()

    def reordered(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[1], inputs[0], *inputs[2:])

    wanted = (0, 2, 3, 4)
    separate = [torch.func.grad(objective, wanted)(*reordered(p.inputs())) for p in problems]
    together = torch.func.vmap(torch.func.grad(objective, wanted))(*reordered(stacked))
    for k, grads in enumerate(separate):
        assert all(torch.allclose(one, many[k], rtol=1e-6) for one, many in zip(grads, together, strict=True))
    states = torch.func.vmap(lambda x: scan(x, *problems[0].inputs()[1:])[0])(stacked[0])
    assert same_bits(states[0], scan(*problems[0].inputs())[0])


def test_forward_mode_raises():
    problem = Problem.random(1, 3, 2, 1)
    with pytest.raises((RuntimeError, NotImplementedError), match="jvp"):
        torch.func.jvp(
            lambda m: scan(problem.x, m, *problem.inputs()[2:])[0].real, (problem.dt_mag,), (problem.dt_mag,)
        )


def test_second_derivative_raises():
    problem = Problem.random(1, 3, 2, 1).requiring_grad()
    (grad,) = torch.autograd.grad(scan(*problem.inputs())[0].abs().sum(), problem.dt_mag, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        grad.sum().backward()


def test_autocast_changes_no_bit():
    problem = Problem.random(2, 17, 20, 4)
    weights = weights_for(problem)
    outside = run(scan, problem, weights)
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(scan, problem, weights)
    assert all(map(same_bits, outside[0] + outside[1], inside[0] + inside[1]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_widened_and_get_gradients_of_their_dtype(dtype):
    half = [t.to(dtype).requires_grad_() for t in native_arguments()]
    widened = [t.detach().float() for t in half]
    states, final_state = scan(*half)
    assert states.dtype == torch.float32 and states.shape == half[0].shape
    assert same_bits(states, scan(*widened)[0])
    states.square().sum().backward()
    assert all(t.grad.dtype == dtype and t.grad.abs().sum() > 0 for t in half)


def test_real_blocks_and_complex_give_the_same_bits():
    problem = Problem.random(2, 5, 6, 3)
    states, _ = scan(*native_arguments())
    assert same_bits(torch.view_as_complex(states), scan(*problem.inputs())[0])


def test_strided_and_conjugated_inputs():
    problem = Problem.random(2, 9, 12, 4)
    strided = Problem(
        problem.x.transpose(0, 1).contiguous().transpose(0, 1),
        problem.dt_mag.repeat_interleave(2, 2)[..., ::2],
        problem.dt_phase.transpose(1, 2).contiguous().transpose(1, 2),
        problem.decay.repeat_interleave(3)[::3],
        problem.frequency.flip(0).contiguous().flip(0),
        problem.initial_state.conj().resolve_conj().conj(),
    )
    assert same_bits(scan(*strided.inputs())[0], scan(*problem.inputs())[0])


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x": torch.zeros(2, 5, 6, dtype=torch.complex128)}, TypeError, "x: expected complex64"),
        ({"x": torch.zeros(2, 5, 6, dtype=torch.int64)}, TypeError, "x: expected"),
        ({"x": torch.zeros(5, 6, dtype=torch.complex64)}, ValueError, "x: expected at least 3"),
        ({"x": torch.zeros(1, 2, 5, 6, dtype=torch.complex64)}, ValueError, r"x: expected shape \[B, S, C\]"),
        ({"x": torch.zeros(2, 5, 0, dtype=torch.complex64)}, ValueError, "x: expected D >= 1"),
        ({"x": None}, TypeError, "x: expected a torch.Tensor, got NoneType"),
        ({"dt_mag": torch.ones(2, 5, 3, dtype=torch.float64)}, TypeError, "dt_mag: expected float32"),
        ({"dt_mag": torch.ones(2, 4, 3)}, ValueError, r"dt_mag: expected shape \[2, 5, G\], got \[2, 4, 3\]"),
        ({"dt_mag": torch.ones(2, 5)}, ValueError, r"dt_mag: expected shape \[2, 5, G\]"),
        (
            {"dt_mag": torch.ones(2, 5, 4)},
            ValueError,
            "dt_mag: expected .* divide C = 6, got G = 4",
        ),
        ({"dt_mag": torch.ones(2, 5, 0)}, ValueError, "dt_mag: .* got G = 0"),
        ({"dt_mag": -torch.ones(2, 5, 3)}, ValueError, "dt_mag: expected .*>= 0, got -1"),
        (
            {"dt_phase": torch.ones(2, 5, 1)},
            ValueError,
            r"dt_phase: expected shape \[2, 5, 3\], got \[2, 5, 1\]",
        ),
        ({"decay": torch.ones(5)}, ValueError, r"decay: expected shape \[6\], got \[5\]"),
        ({"decay": -torch.ones(6)}, ValueError, "decay: expected .*>= 0, got -1"),
        ({"frequency": torch.ones(6, dtype=torch.complex64)}, TypeError, "frequency: expected float32"),
        (
            {"frequency": torch.ones(6, device="meta")},
            ValueError,
            "frequency: expected device cpu.* got meta",
        ),
        (
            {"initial_state": torch.zeros(2, 5, dtype=torch.complex64)},
            ValueError,
            r"initial_state: expected shape \[2, 6\]",
        ),
        (
            {"initial_state": torch.zeros(2, 6, dtype=torch.complex128)},
            TypeError,
            "initial_state: expected complex64",
        ),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
    problem = replace(Problem.random(2, 5, 6, 3), **changes)
    with pytest.raises(error, match=message):
        scan(*problem.inputs())
