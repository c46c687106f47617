"""The state space of a spinor layer: maps into the states, the selective scan, maps out of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sem.layers import RealReadout, complex_of, real_blocks, real_matrix
from sem.ops.scan import scan_backward, scan_forward
from sem.ops.state_space import state_space
from sem.precision import product_dtype
from sem.spinor.products import outer_product, product

_DT_RANGE = (1e-4, 2.0)


class SelectiveStates(nn.Module):
    """The state space: ``h_t = A_t h_{t-1} + dt_mag B x_t``, ``y_t = C h_t`` in ``groups`` groups.

    ``A_t = exp(-dt_mag softplus(a)) e^{i dt_phase phi}``, so ``|A_t| < 1``; the two time steps of a group are clamped
    exponentials of a linear map of the token. Shapes: complex64 ``[B, S, dim]`` to the same.
    """

    def __init__(self, dim: int, state_dim: int, groups: int) -> None:
        super().__init__()
        size = dim // groups
        self.groups = groups
        self.time_steps = RealReadout(dim, 2 * groups)
        with torch.no_grad():
            self.time_steps.weight.normal_(std=1 / math.sqrt(2 * dim))
            log_dt = torch.empty(groups).uniform_(math.log(0.3), math.log(1.5))
            self.time_steps.bias.copy_(torch.cat([log_dt, torch.zeros(groups)]))
        self.into = nn.Parameter(torch.randn(groups, state_dim, size, 2) / math.sqrt(2 * size))
        self.out_of = nn.Parameter(torch.randn(groups, size, state_dim, 2) / math.sqrt(2 * state_dim))
        rate = torch.exp(torch.empty(groups * state_dim).uniform_(math.log(0.1), math.log(2.0)))
        self.raw_decay = nn.Parameter(torch.log(torch.expm1(rate)))
        self.frequency = nn.Parameter(torch.empty(groups * state_dim).uniform_(-math.pi, math.pi))
        for parameter in (self.raw_decay, self.frequency):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        return self.advance(x, None)[0]

    def advance(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output behind ``state`` (complex64 ``[B, groups * state_dim]``; zeros if None), and the last state."""
        dt_mag, dt_phase = self.time_steps(x).float().exp().clamp(*_DT_RANGE).chunk(2, dim=-1)
        decay = functional.softplus(self.raw_decay)
        return _mix(x, dt_mag, dt_phase, self.into, self.out_of, decay, self.frequency, state)


def _mix(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """:func:`sem.ops.state_space` on the CPU, all of it in float32: what its states would cost in memory is more than
    bfloat16 products gain. Composed elsewhere."""
    if x.device.type != "cpu":
        return _composed(x, *arguments)
    with torch.autocast("cpu", enabled=False):
        return state_space(x, *arguments)


def _composed(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """:func:`sem.ops.state_space` out of products and the scan, for devices that have no kernel for all of it. ``x`` is
    complex64 and the matrices are real blocks; under autocast the products are autocast's."""
    rows = real_blocks(x)
    state = x.new_zeros(x.shape[0], len(frequency)) if initial_state is None else initial_state
    matrices = real_matrix(into), real_matrix(out_of)
    blocks = torch.view_as_real(state)
    out, last = _GroupedScan.apply(rows, dt_mag, dt_phase, *matrices, decay, frequency, blocks, product_dtype(rows))
    return complex_of(out), torch.view_as_complex(last)


class _GroupedScan(Function):
    """``C scan(B x)`` for real blocks ``x [B, S, 2 dim]``.

    Nothing of the size of the drive and the states, ``state_dim / (dim / groups)`` times that of the wave, is kept: the
    backward computes them again, which costs less than to fetch them from memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt_mag: Tensor,
        dt_phase: Tensor,
        into: Tensor,
        out_of: Tensor,
        decay: Tensor,
        frequency: Tensor,
        state: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        drive = _drive(x, into, dtype)
        given = _scan_inputs(x, drive, dt_mag, dt_phase, decay, frequency, state)
        states, last = scan_forward(*given)
        out = torch.empty_like(x)
        product(states.view_as(drive), out_of.transpose(1, 2), _in_groups(out, len(into)), dtype)
        ctx.save_for_backward(x, dt_mag, dt_phase, into, out_of, decay, frequency, state)
        ctx.dtype = dtype
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        x, dt_mag, dt_phase, into, out_of, decay, frequency, state = ctx.saved_tensors
        rows, grad_rows = _in_groups(x, len(into)), _in_groups(grad, len(into))
        drive = _drive(x, into, ctx.dtype)
        given = _scan_inputs(x, drive, dt_mag, dt_phase, decay, frequency, state)
        states, _ = scan_forward(*given)
        grad_out_of = outer_product(grad_rows, states.view_as(drive), ctx.dtype)
        grad_states = product(grad_rows, out_of, torch.empty_like(drive), ctx.dtype)
        grads = scan_backward(grad_states.view_as(states), grad_last.contiguous(), *given, states)
        grad_drive, grad_mag, grad_phase, grad_decay, grad_frequency, grad_state = grads
        grad_drive = grad_drive.view_as(drive)
        grad_into = outer_product(grad_drive, rows, ctx.dtype)
        grad_x = torch.empty_like(x)
        product(grad_drive, into, _in_groups(grad_x, len(into)), ctx.dtype)
        return grad_x, grad_mag, grad_phase, grad_into, grad_out_of, grad_decay, grad_frequency, grad_state, None


def _in_groups(blocks: Tensor, groups: int) -> Tensor:
    return blocks.reshape(-1, groups, blocks.shape[-1] // groups)


def _drive(x: Tensor, into: Tensor, dtype: torch.dtype) -> Tensor:
    rows = _in_groups(x, len(into))
    return product(rows, into.transpose(1, 2), rows.new_empty(*rows.shape[:2], into.shape[1]), dtype)


def _scan_inputs(x: Tensor, drive: Tensor, dt_mag: Tensor, dt_phase: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """The arguments of :func:`sem.ops.scan.scan_forward`."""
    decay, frequency, state = rest
    blocks = drive.view(*x.shape[:-1], -1, 2)
    return blocks, dt_mag.contiguous(), dt_phase.contiguous(), decay, frequency, state.contiguous()
