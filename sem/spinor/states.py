"""The state space of a spinor layer: maps into the states, the selective scan, maps out of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sem.layers import RealReadout, complex_of, real_blocks, real_matrix
from sem.ops.scan import scan_backward, scan_forward
from sem.precision import product_dtype
from sem.spinor.products import outer_product, product

_DT_RANGE = (1e-4, 2.0)
_CACHED = 2**19  # floats per buffer that a CPU works on at a time


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
        rows = real_blocks(x)
        dt_mag, dt_phase = self.time_steps(x).float().exp().clamp(*_DT_RANGE).chunk(2, dim=-1)
        if state is None:
            state = x.new_zeros(x.shape[0], len(self.frequency))
        out, last = _GroupedScan.apply(
            rows,
            dt_mag,
            dt_phase,
            real_matrix(self.into),
            real_matrix(self.out_of),
            functional.softplus(self.raw_decay),
            self.frequency,
            torch.view_as_real(state),
            product_dtype(rows),
        )
        return complex_of(out), torch.view_as_complex(last)


class _GroupedScan(Function):
    """``C scan(B x)`` for real blocks ``x [B, S, 2 dim]``, a few groups at a time.

    Groups do not see each other, so the drive and the states of those at work stay in cache and nothing of their size,
    ``state_dim / (dim / groups)`` times that of the wave, is kept: the backward computes them again, which costs less
    than to fetch them from memory.
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
        ctx.save_for_backward(x, dt_mag, dt_phase, into, out_of, decay, frequency, state)
        ctx.dtype = dtype
        out, last = torch.empty_like(x), torch.empty_like(state)
        rows, out_rows = _in_groups(x, len(into)), _in_groups(out, len(into))
        for groups, channels in _pieces(x, into):
            drive = _drive(rows[:, groups], into[groups], dtype)
            given = _scan_inputs(x, drive, dt_mag, dt_phase, decay, frequency, state, groups, channels)
            states, last[:, channels] = scan_forward(*given)
            product(states.view_as(drive), out_of[groups].transpose(1, 2), out_rows[:, groups], dtype)
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        x, dt_mag, dt_phase, into, out_of, decay, frequency, state = ctx.saved_tensors
        dtype = ctx.dtype
        grads = [torch.empty_like(tensor) for tensor in ctx.saved_tensors]
        grad_x, grad_mag, grad_phase, grad_into, grad_out_of, grad_decay, grad_frequency, grad_state = grads
        rows, grad_rows, grad_x_rows = (_in_groups(tensor, len(into)) for tensor in (x, grad, grad_x))
        for groups, channels in _pieces(x, into):
            drive = _drive(rows[:, groups], into[groups], dtype)
            given = _scan_inputs(x, drive, dt_mag, dt_phase, decay, frequency, state, groups, channels)
            states, _ = scan_forward(*given)
            grad_out_of[groups] = outer_product(grad_rows[:, groups], states.view_as(drive), dtype)
            grad_states = product(grad_rows[:, groups], out_of[groups], torch.empty_like(drive), dtype)
            (
                grad_drive,
                grad_mag[..., groups],
                grad_phase[..., groups],
                grad_decay[channels],
                grad_frequency[channels],
                grad_state[:, channels],
            ) = scan_backward(grad_states.view_as(states), grad_last[:, channels].contiguous(), *given, states)
            grad_drive = grad_drive.view_as(drive)
            grad_into[groups] = outer_product(grad_drive, rows[:, groups], dtype)
            product(grad_drive, into[groups], grad_x_rows[:, groups], dtype)
        return *grads, None


def _in_groups(blocks: Tensor, groups: int) -> Tensor:
    return blocks.reshape(-1, groups, blocks.shape[-1] // groups)


def _pieces(x: Tensor, into: Tensor) -> Iterator[tuple[slice, slice]]:
    """Ranges of groups and of their states' channels; all at once where there is no cache to stay in."""
    groups, width, _ = into.shape
    rows = x.shape[:-1].numel()
    size = max(1, _CACHED // max(1, rows * width)) if x.device.type == "cpu" else groups
    for first in range(0, groups, size):
        last = min(first + size, groups)
        yield slice(first, last), slice(first * width // 2, last * width // 2)


def _drive(rows: Tensor, into: Tensor, dtype: torch.dtype) -> Tensor:
    return product(rows, into.transpose(1, 2), rows.new_empty(*rows.shape[:2], into.shape[1]), dtype)


def _scan_inputs(
    x: Tensor,
    drive: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    decay: Tensor,
    frequency: Tensor,
    state: Tensor,
    groups: slice,
    channels: slice,
) -> tuple[Tensor, ...]:
    """The arguments of :func:`sem.ops.scan.scan_forward` for a few groups."""
    return (
        drive.view(*x.shape[:-1], -1, 2),
        dt_mag[..., groups].contiguous(),
        dt_phase[..., groups].contiguous(),
        decay[channels],
        frequency[channels],
        state[:, channels].contiguous(),
    )
