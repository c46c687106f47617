"""scan under torch's transformations, and what it accepts and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scan_problems import Problem, native_arguments, run, same_bits, weights_for
from torch import Tensor

from sem.ops import scan
from sem.ops.scan import scan_backward, scan_forward


@pytest.mark.parametrize("steps", [0, 5])
def test_opcheck(steps):
    arguments = native_arguments(steps=steps)
    torch.library.opcheck(scan_forward.op, tuple(arguments))
    states, final_state = scan_forward(*arguments)
    torch.library.opcheck(scan_backward.op, (*arguments, states, states, final_state))


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
