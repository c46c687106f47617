"""The selective state space composed of torch's products and the scan, for devices that have no kernel for it all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sem.ops.blocks import real_matrix
from sem.ops.scan import scan_backward, scan_forward
from sem.precision import product_dtype


def state_space(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
) -> tuple[Tensor, Tensor]:
    """As :func:`sem.ops.state_space`, in real blocks; under autocast the products are autocast's."""
    rows = x.flatten(-2)
    matrices = real_matrix(into), real_matrix(out_of)
    dtype = product_dtype(rows)
    out, last = _GroupedScan.apply(rows, dt_mag, dt_phase, *matrices, decay, frequency, initial_state, dtype)
    return out.view_as(x), last


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
        _product(states.view_as(drive), out_of.transpose(1, 2), _in_groups(out, len(into)), dtype)
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
        grad_out_of = _outer_product(grad_rows, states.view_as(drive), ctx.dtype)
        grad_states = _product(grad_rows, out_of, torch.empty_like(drive), ctx.dtype)
        grads = scan_backward(grad_states.view_as(states), grad_last.contiguous(), *given, states)
        grad_drive, grad_mag, grad_phase, grad_decay, grad_frequency, grad_state = grads
        grad_drive = grad_drive.view_as(drive)
        grad_into = _outer_product(grad_drive, rows, ctx.dtype)
        grad_x = torch.empty_like(x)
        _product(grad_drive, into, _in_groups(grad_x, len(into)), ctx.dtype)
        return grad_x, grad_mag, grad_phase, grad_into, grad_out_of, grad_decay, grad_frequency, grad_state, None


def _in_groups(blocks: Tensor, groups: int) -> Tensor:
    return blocks.reshape(-1, groups, blocks.shape[-1] // groups)


def _drive(x: Tensor, into: Tensor, dtype: torch.dtype) -> Tensor:
    rows = _in_groups(x, len(into))
    return _product(rows, into.transpose(1, 2), rows.new_empty(*rows.shape[:2], into.shape[1]), dtype)


def _scan_inputs(x: Tensor, drive: Tensor, dt_mag: Tensor, dt_phase: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """The arguments of :func:`sem.ops.scan.scan_forward`."""
    decay, frequency, state = rest
    blocks = drive.view(*x.shape[:-1], -1, 2)
    return blocks, dt_mag.contiguous(), dt_phase.contiguous(), decay, frequency, state.contiguous()


def _product(rows: Tensor, matrices: Tensor, out: Tensor, dtype: torch.dtype) -> Tensor:
    """``out[:, g] = rows[:, g] @ matrices[g]`` for ``rows [R, G, in]``, ``matrices [G, in, out]``, ``out [R, G, out]``.

    The columns of a group may lie apart from those of its neighbours; they are not gathered first. The product is taken
    in ``dtype``.
    """
    if dtype == out.dtype:
        torch.bmm(rows.transpose(0, 1), matrices, out=out.transpose(0, 1))
    else:
        out.copy_(torch.bmm(rows.transpose(0, 1).to(dtype), matrices.to(dtype)).transpose(0, 1))
    return out


def _outer_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """``left[:, g]^T @ right[:, g]``, ``[G, i, j]``, from ``left [R, G, i]`` and ``right [R, G, j]``."""
    if left.shape[2] > right.shape[2]:  # the longer side goes along the lanes of the matrix product
        return _outer_product(right, left, dtype).transpose(1, 2)
    return torch.bmm(left.permute(1, 2, 0).to(dtype), right.transpose(0, 1).to(dtype)).to(right.dtype)
