"""The selective state space composed of torch's products and the scan, for devices that have no kernel for it all."""

from __future__ import annotations

import torch
from torch import Tensor

from sem.ops.blocks import real_matrix
from sem.ops.scan import scan_backward, scan_forward


def state_space_forward(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel's outputs; nothing of the size of the states is kept, so there are no checkpoints."""
    rows = x.flatten(-2)
    drive = _drive(rows, real_matrix(into), dtype)
    states, last = scan_forward(*_scan_inputs(rows, drive, dt_mag, dt_phase, decay, frequency, initial_state))
    out = torch.empty_like(rows)
    _product(states.view_as(drive), real_matrix(out_of).transpose(1, 2), _in_groups(out, len(into)), dtype)
    return out.view_as(x), last, x.new_empty(len(x), 0, *initial_state.shape[1:])


def state_space_backward(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
    checkpoints: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Gradients to the first eight. The drive and the states, ``state_dim / (dim / groups)`` times the size of the
    wave, are computed again, which costs less than to fetch them from memory."""
    inwards, outwards = real_matrix(into), real_matrix(out_of)
    groups, blocks = len(into), x.flatten(-2)
    rows, grad_rows = _in_groups(blocks, groups), _in_groups(grad_y.flatten(-2), groups)
    drive = _drive(blocks, inwards, dtype)
    given = _scan_inputs(blocks, drive, dt_mag, dt_phase, decay, frequency, initial_state)
    states, _ = scan_forward(*given)
    grad_out_of = _outer_product(grad_rows, states.view_as(drive), dtype)
    grad_states = _product(grad_rows, outwards, torch.empty_like(drive), dtype)
    grads = scan_backward(*given, states, grad_states.view_as(states), grad_final_state)
    grad_drive, grad_mag, grad_phase, grad_decay, grad_frequency, grad_state = grads
    grad_drive = grad_drive.view_as(drive)
    grad_into = _outer_product(grad_drive, rows, dtype)
    grad_x = torch.empty_like(blocks)
    _product(grad_drive, inwards, _in_groups(grad_x, groups), dtype)
    return (
        *(grad_x.view_as(x), grad_mag, grad_phase, _complex_gradient(grad_into), _complex_gradient(grad_out_of)),
        *(grad_decay, grad_frequency, grad_state),
    )


def _complex_gradient(grad: Tensor) -> Tensor:
    """The gradient to a complex matrix ``[..., out, in, 2]`` from that to its real one (:func:`real_matrix`)."""
    parts = grad.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2))
    to_real = parts[..., 0, :, 0] + parts[..., 1, :, 1]
    to_imag = parts[..., 1, :, 0] - parts[..., 0, :, 1]
    return torch.stack([to_real, to_imag], -1)


def _in_groups(blocks: Tensor, groups: int) -> Tensor:
    return blocks.reshape(-1, groups, blocks.shape[-1] // groups)


def _drive(x: Tensor, into: Tensor, dtype: torch.dtype) -> Tensor:
    rows = _in_groups(x, len(into))
    return _product(rows, into.transpose(1, 2), rows.new_empty(*rows.shape[:2], into.shape[1]), dtype)


def _scan_inputs(x: Tensor, drive: Tensor, dt_mag: Tensor, dt_phase: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """The arguments of :func:`sem.ops.scan.scan_forward`."""
    decay, frequency, state = rest
    blocks = drive.view(*x.shape[:-1], drive.shape[1] * drive.shape[2] // 2, 2)
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
