"""The token-wise operators composed of torch's own, for devices on which sem has no kernel of theirs.

Each has the signature of the kernel that it stands for (real blocks, float32) and its backward written out: recorded
one operation at a time it would take two to four times as many passes over memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sem.ops.blocks import intensity, interleaved, pair_sum, real_matrix

GATE_SLOPE = 1.7015
ACTIVE = 1e-12
LEAST_MEAN = 1e-24
LEAST_MEAN_INTENSITY = torch.finfo(torch.float32).tiny


def complex_rms_norm_forward(z: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """``z [rows, D, 2]`` over its root mean square plus ``eps``, times ``gamma [D]``; the mean is over the entries of a
    row whose ``|z|^2`` exceeds ``ACTIVE``."""
    scale, _ = _scale(z, eps)
    return (z * scale).mul_(gamma.unsqueeze(-1))


def complex_rms_norm_backward(z: Tensor, gamma: Tensor, grad_out: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The gradients to ``z`` and ``gamma``. A row whose mean intensity is below ``LEAST_MEAN`` is scaled by a
    constant."""
    scale, slope = _scale(z, eps)
    grad_z = grad_out * gamma.unsqueeze(-1)
    along = grad_z * z
    grad_scale = along.sum((-2, -1), keepdim=True)
    torch.mul(grad_out, z, out=along).mul_(scale)
    grad_gamma = along.sum((0, -1))
    grad_z.mul_(scale).addcmul_(z, grad_scale.mul_(slope), value=-1)
    return grad_z, grad_gamma


def _scale(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``1 / (rms + eps)`` of every row, ``[rows, 1, 1]``, and its slope: ``d scale = -slope Re(conj(z) dz)``."""
    power = z.square().sum(-1, keepdim=True)
    # compared into float: a tensor of booleans would cost more than all the rest of the norm
    active = torch.gt(power, ACTIVE, out=torch.empty_like(power)).sum(-2, keepdim=True).clamp_min(1)
    mean = power.sum(-2, keepdim=True) / active
    # the floor keeps the square root differentiable for an all-zero token
    rms = mean.clamp_min(LEAST_MEAN).sqrt()
    scale = 1 / (rms + eps)
    return scale, torch.where(mean >= LEAST_MEAN, scale.square() / (active * rms), 0)


def encoder_step(
    kernel: Tensor,
    positions: Tensor,
    loads: Tensor,
    lost: Tensor,
    lift: Tensor,
    rates: Tensor,
    prior_rows: float,
    tol: float,
    sparsity: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """One token of each sequence through the encoder: its wave ``[B, D, 2]``, and the columns' sums ``[B, rounds, M]``
    and what rounding took from them, both with the token's rows added. ``csrc/include/sem/encoder_step.hpp`` has the
    formulas."""
    rounds, columns = loads.shape[1:]
    before = loads + lost + prior_rows / columns
    shared = kernel * ((positions + (prior_rows + 1)) / columns).unsqueeze(-1)
    totals = [kernel.sum(-1, keepdim=True)]
    settled = torch.zeros_like(totals[0], dtype=torch.bool)
    for k in range(1, rounds):
        if k % 8 == 0 and bool(settled.all()):  # to ask at every round would wait for the device as often
            totals += [totals[-1]] * (rounds - k)
            break
        weighted = shared / torch.addcdiv(before[:, k - 1], kernel, totals[-1])
        total = torch.where(settled, totals[-1], weighted.sum(-1, keepdim=True))
        settled = settled | (total >= math.exp(-tol) * totals[-1]) & (total <= math.exp(tol) * totals[-1])
        totals.append(total)
    plan = shared / torch.addcdiv(before[:, -1], kernel, totals[-1])
    plan = sparsify(plan / plan.sum(-1, keepdim=True), sparsity)
    added = torch.addcdiv(lost, kernel.unsqueeze(1), torch.stack(totals, 1))
    after = loads + added
    angle = positions.unsqueeze(-1) * rates
    wave = torch.view_as_complex((plan @ lift.T).unflatten(-1, (-1, 2))) * torch.complex(angle.cos(), angle.sin())
    return torch.view_as_real(wave), after, added - (after - loads)


def sparsify(plan: Tensor, k: int) -> Tensor:
    """Subtracts the k-th largest entry of each row and clips at 0: at most ``k - 1`` nonzeros.

    Example:
        >>> sparsify(torch.tensor([[0.5, 0.3, 0.2]]), 2)
        tensor([[0.2000, 0.0000, 0.0000]])
    """
    threshold = plan.topk(k, dim=-1).values.narrow(-1, k - 1, 1)
    return (plan - threshold).clamp_min(0)


def gated_rotation_forward(x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
    """``x + sigmoid(GATE_SLOPE logits) (U x - x)`` for ``x [rows, D, 2]``, ``logits [rows, D]`` and ``U`` of
    ``blocks [G, b, b, 2]``."""
    gate = (GATE_SLOPE * logits).sigmoid_().unsqueeze(-1)
    return _map_blocks(x, _turn(blocks).transpose(1, 2)).mul_(gate).add_(x)


def gated_rotation_backward(
    x: Tensor, logits: Tensor, blocks: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients to ``x``, ``logits`` and ``blocks``."""
    turn = _turn(blocks)
    gate = (GATE_SLOPE * logits).sigmoid_()
    steepness = torch.addcmul(gate, gate, gate, value=-1).mul_(GATE_SLOPE)
    grad_logits = _map_blocks(x, turn.transpose(1, 2)).mul_(grad_out).sum(-1).mul_(steepness)
    held = grad_out * gate.unsqueeze(-1)
    left, right = (z.reshape(len(z), *turn.shape[:2]).transpose(0, 1) for z in (held, x))
    with _full_precision(x):
        outer = torch.bmm(left.transpose(1, 2), right).unflatten(1, (-1, 2)).unflatten(-1, (-1, 2))
    to_real = outer[:, :, 0, :, 0] + outer[:, :, 1, :, 1]
    to_imag = outer[:, :, 1, :, 0] - outer[:, :, 0, :, 1]
    return _map_blocks(held, turn).add_(grad_out), grad_logits, torch.stack([to_real, to_imag], -1)


def _turn(blocks: Tensor) -> Tensor:
    """``U - I`` as real matrices ``[G, 2 b, 2 b]``."""
    matrix = real_matrix(blocks)
    return matrix - torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _map_blocks(z: Tensor, matrices: Tensor) -> Tensor:
    """``z``, cut into groups, times ``matrices [G, in, out]``; in full precision under autocast."""
    rows = z.reshape(len(z), *matrices.shape[:2])
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    with _full_precision(z):
        torch.bmm(rows.transpose(0, 1), matrices, out=out.transpose(0, 1))
    return out.view_as(z)


def _full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def wave_gate_forward(psi: Tensor, logits: Tensor) -> Tensor:
    """``psi [rows, D, 2]`` times ``silu(logits [rows, D])``."""
    return psi * torch.nn.functional.silu(logits).unsqueeze(-1)


def wave_gate_backward(psi: Tensor, logits: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients to ``psi`` and ``logits``."""
    opened = logits.sigmoid()
    silu = logits * opened
    slope = torch.addcmul(opened, silu, 1 - opened)
    return grad_out * silu.unsqueeze(-1), (psi * grad_out).sum(-1).mul_(slope)


def potential_step_forward(psi: Tensor, potential: Tensor, kerr: Tensor) -> Tensor:
    """``psi [rows, D, 2]`` turned by ``potential [rows, D] + kerr [D] I``, in radians, ``I`` the intensity over its
    mean in the row."""
    share, _, _ = _shares(psi)
    return torch.view_as_real(torch.view_as_complex(psi) * _phase_factor(torch.addcmul(potential, kerr, share)))


def potential_step_backward(
    psi: Tensor, potential: Tensor, kerr: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients to ``psi``, ``potential`` and ``kerr``; that through the mean intensity ends where the mean is held
    at ``LEAST_MEAN_INTENSITY``."""
    share, mean, inverse = _shares(psi)
    back = _phase_factor(torch.addcmul(potential, kerr, share).neg_()).mul_(torch.view_as_complex(grad_out))
    grad_potential = (torch.view_as_complex(psi).conj_physical() * back).imag.contiguous()
    by_kerr = grad_potential * share
    through_mean = (kerr * by_kerr).mean(-1, keepdim=True).mul_(mean >= LEAST_MEAN_INTENSITY)
    along = torch.addcmul(-through_mean, grad_potential, kerr).mul_(inverse).mul_(2)
    return torch.view_as_real(back).addcmul_(psi, along.unsqueeze(-1)), grad_potential, by_kerr.sum(0)


def _shares(psi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``|psi|^2`` over its mean, the mean, and what was multiplied by for it."""
    power = psi.square().sum(-1)
    mean = power.mean(-1, keepdim=True)
    inverse = mean.clamp_min(LEAST_MEAN_INTENSITY).reciprocal_()
    return power.mul_(inverse), mean, inverse


def _phase_factor(phase: Tensor) -> Tensor:
    return torch.complex(phase.cos(), phase.sin())


def causal_conv_forward(x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor) -> Tensor:
    """``x [B, S, C, 2]`` behind ``history [B, W - 1, C, 2]``, convolved per channel with ``taps [W, C, 2]``,
    ``bias [C, 2]`` added, then gated by magnitude at the rates ``e^theta`` unless ``theta`` is empty."""
    wave = _convolved(x, history, taps, bias)
    if theta.numel():
        wave = wave * _passed(wave, theta)
    return torch.view_as_real(wave)


def causal_conv_backward(
    x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients to ``x``, ``history``, ``taps``, ``bias`` and ``theta``; the convolution is computed again for the
    gate's."""
    grad = torch.view_as_complex(grad_out)
    grad_theta = torch.empty_like(theta)
    if theta.numel():
        wave = _convolved(x, history, taps, bias)
        passed, rate = _passed(wave, theta), theta.exp()
        # d out = passed dv + v (1 - passed) d(|v|^2 e^theta)
        held = pair_sum(interleaved(grad) * interleaved(wave)).mul_(1 - passed).mul_(rate)
        grad_theta = intensity(wave).mul_(held).flatten(0, -2).sum(0)
        grad = (grad * passed).add_(wave * held.mul_(2))
    inputs = torch.view_as_complex(torch.cat([history, x], 1))
    past, steps = history.shape[1], x.shape[1]
    turned, mirrored = torch.view_as_complex(taps).conj_physical(), grad.conj_physical()
    grad_inputs, grad_taps = torch.zeros_like(inputs), torch.empty_like(turned)
    for before, k in _windows(steps, past):
        grad_inputs[:, before].addcmul_(grad, turned[k])
        grad_taps[k] = (mirrored * inputs[:, before]).sum((0, 1))
    grad_history, grad_x = (torch.view_as_real(part.contiguous()) for part in grad_inputs.split([past, steps], 1))
    grad_taps, grad_bias = (torch.view_as_real(part) for part in (grad_taps.conj_physical_(), grad.sum((0, 1))))
    return grad_x, grad_history, grad_taps, grad_bias, grad_theta


def _convolved(x: Tensor, history: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """``v_t = bias + sum_k taps_k x_{t + k - width + 1}``, complex."""
    inputs, kernel, offset = (torch.view_as_complex(t) for t in (torch.cat([history, x], 1), taps, bias))
    past = history.shape[1]
    out = torch.addcmul(offset, inputs[:, past:], kernel[-1])
    for before, k in _windows(x.shape[1], past):
        if k < past:
            out.addcmul_(inputs[:, before], kernel[k])
    return out


def _windows(steps: int, past: int) -> Iterator[tuple[slice, int]]:
    """The inputs that each tap takes to the outputs, among those of the history and the positions."""
    return ((slice(k, k + steps), k) for k in range(past, -1, -1))


def _passed(wave: Tensor, theta: Tensor) -> Tensor:
    """What the gate by magnitude lets through of each entry: small ones are suppressed, phases kept."""
    return intensity(wave).mul_(-theta.exp()).expm1_().neg_()
