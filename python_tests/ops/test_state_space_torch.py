"""state_space under torch's transformations, and what it accepts and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scan_problems import run, same_bits
from state_space_problems import Problem, weights_for
from torch import Tensor

from sem.ops import state_space
from sem.ops.state_space import state_space_backward, state_space_forward


@pytest.mark.parametrize("steps", [0, 5, 70])
def test_opcheck(steps):
    arguments = Problem.random(2, steps, 3, 2, 4).interleaved()
    torch.library.opcheck(state_space_forward.op, (*arguments, torch.float32))
    y, final_state, checkpoints = state_space_forward(*arguments, torch.float32)
    assert checkpoints.shape == (2, max(0, (steps - 1) // 64), 6, 2)
    torch.library.opcheck(state_space_backward.op, (*arguments, checkpoints, y, final_state, torch.float32))


def test_compiles_without_graph_breaks():
    def objective(*inputs: Tensor) -> Tensor:
        y, final_state = state_space(*inputs)
        return torch.view_as_real(y).square().sum() + torch.view_as_real(final_state).sum()

    eager, compiled = (Problem.random(2, 9, 2, 3, 4).requiring_grad() for _ in range(2))
    objective(*eager.inputs()).backward()
    torch.compile(objective, fullgraph=True, backend="aot_eager")(*compiled.inputs()).backward()
    for a, b in zip(eager.inputs(), compiled.inputs(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_functional_gradient_and_vmap_over_every_input():
    problems = [Problem.random(2, 9, 2, 3, 4, seed) for seed in range(3)]
    stacked = tuple(torch.stack(parts) for parts in zip(*(p.inputs() for p in problems), strict=True))

    def objective(*inputs: Tensor) -> Tensor:
        return torch.view_as_real(state_space(*inputs)[0]).square().sum()

    wanted = (1, 2, 5, 6)
    separate = [torch.func.grad(objective, wanted)(*p.inputs()) for p in problems]
    together = torch.func.vmap(torch.func.grad(objective, wanted))(*stacked)
    for k, grads in enumerate(separate):
        assert all(torch.allclose(one, many[k], rtol=1e-5) for one, many in zip(grads, together, strict=True))
    y = torch.func.vmap(lambda x: state_space(x, *problems[0].inputs()[1:])[0])(stacked[0])
    assert same_bits(y[0], state_space(*problems[0].inputs())[0])


def test_forward_mode_raises():
    problem = Problem.random(1, 3, 2, 1, 1)
    with pytest.raises((RuntimeError, NotImplementedError), match="jvp"):
        torch.func.jvp(
            lambda m: state_space(problem.x, m, *problem.inputs()[2:])[0].real, (problem.dt_mag,), (problem.dt_mag,)
        )


def test_second_derivative_raises():
    problem = Problem.random(1, 3, 2, 1, 1).requiring_grad()
    (grad,) = torch.autograd.grad(state_space(*problem.inputs())[0].abs().sum(), problem.dt_mag, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        grad.sum().backward()


def test_autocast_changes_no_bit():
    problem = Problem.random(2, 17, 4, 5, 3)
    weights = weights_for(problem)
    outside = run(state_space, problem, weights)
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(state_space, problem, weights)
    assert all(map(same_bits, outside[0] + outside[1], inside[0] + inside[1]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_widened_and_get_gradients_of_their_dtype(dtype):
    half = [t.to(dtype).requires_grad_() for t in Problem.random(2, 5, 3, 2, 2).interleaved()]
    widened = [t.detach().float() for t in half]
    y, final_state = state_space(*half)
    assert y.dtype == torch.float32 and y.shape == half[0].shape
    assert same_bits(y, state_space(*widened)[0])
    y.square().sum().backward()
    assert all(t.grad.dtype == dtype and t.grad.abs().sum() > 0 for t in half)


def test_strided_and_conjugated_inputs():
    problem = Problem.random(2, 9, 4, 3, 2)
    strided = replace(
        problem,
        x=problem.x.transpose(0, 1).contiguous().transpose(0, 1),
        dt_mag=problem.dt_mag.repeat_interleave(2, 2)[..., ::2],
        dt_phase=problem.dt_phase.transpose(1, 2).contiguous().transpose(1, 2),
        into=problem.into.mT.contiguous().mT,
        out_of=problem.out_of.conj().resolve_conj().conj(),
    )
    assert same_bits(state_space(*strided.inputs())[0], state_space(*problem.inputs())[0])


COMPLEX = torch.complex64


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x": torch.zeros(2, 5, 6, dtype=torch.complex128)}, TypeError, "x: expected complex64"),
        ({"x": torch.zeros(1, 2, 5, 6, dtype=COMPLEX)}, ValueError, r"x: expected shape \[B, S, D\]"),
        ({"x": torch.zeros(2, 5, 6, dtype=COMPLEX, device="meta")}, ValueError, "dt_mag: expected device meta"),
        ({"dt_mag": torch.ones(2, 4, 3)}, ValueError, r"dt_mag: expected shape \[2, 5, G\], got \[2, 4, 3\]"),
        ({"dt_mag": torch.ones(2, 5, 4)}, ValueError, "dt_mag: expected .* divide D = 6, got G = 4"),
        ({"dt_mag": -torch.ones(2, 5, 3)}, ValueError, "dt_mag: expected .*>= 0, got -1"),
        ({"dt_phase": torch.ones(2, 5, 1)}, ValueError, r"dt_phase: expected shape \[2, 5, 3\]"),
        (
            {"into": torch.zeros(3, 4, 3, dtype=COMPLEX)},
            ValueError,
            r"into: expected shape \[3, N, 2\], N >= 1, got \[3, 4, 3\]",
        ),
        (
            {"into": torch.zeros(3, 0, 2, dtype=COMPLEX)},
            ValueError,
            r"into: expected shape \[3, N, 2\], N >= 1, got \[3, 0, 2\]",
        ),
        ({"out_of": torch.zeros(3, 4, 2, dtype=COMPLEX)}, ValueError, r"out_of: expected shape \[3, 2, 4\]"),
        ({"decay": -torch.ones(12)}, ValueError, "decay: expected .*>= 0, got -1"),
        ({"decay": torch.ones(11)}, ValueError, r"decay: expected shape \[12\], got \[11\]"),
        ({"frequency": torch.ones(12, device="meta")}, ValueError, "frequency: expected device cpu.* got meta"),
        ({"initial_state": torch.zeros(2, 5, dtype=COMPLEX)}, ValueError, r"initial_state: expected shape \[2, 12\]"),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
    problem = replace(Problem.random(2, 5, 3, 4, 2), **changes)
    with pytest.raises(error, match=message):
        state_space(*problem.inputs())
