"""The spinor layer: a causal, complex, selective state-space layer along the sequence."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sem.layers import ComplexLinear, ComplexRMSNorm, planar_intensity, real_matrix, scale_planes
from sem.ops import scan

_GATE_SLOPE = 1.7015
_DT_RANGE = (1e-4, 2.0)


class SpinorState(NamedTuple):
    """What the positions seen so far leave to those that follow, in one layer.

    ``history [B, d_conv - 1, 2 dim]``: the convolution's last inputs, planar, float32, zeros before the first position.
    ``states [B, groups * state_dim]``: the scan's state, complex64.
    """

    history: Tensor
    states: Tensor


class ComplexMamba3Layer(nn.Module):
    """RMS norm, gated block rotation, causal convolution, magnitude gate, selective scan, projection, residual.

    Args:
        dim: ``D``, the complex width of a token; divisible by ``block_size`` and ``mimo_groups``.
        block_size: size of the blocks of the gated rotation.
        state_dim: complex states per group.
        mimo_groups: groups of ``dim / mimo_groups`` channels; a group shares its states and its time steps.
        d_conv: width of the causal depthwise convolution.
        num_layers: depth ``L`` of the stack; the residual branch starts at ``1 / sqrt(2 L)``.

    Shapes: complex64 ``[B, S, dim]`` to the same; position t sees positions up to t only.
    """

    def __init__(
        self,
        dim: int,
        block_size: int = 8,
        state_dim: int = 128,
        mimo_groups: int = 16,
        d_conv: int = 4,
        num_layers: int = 1,
    ) -> None:
        super().__init__()
        if dim % block_size or dim % mimo_groups:
            raise ValueError(
                f"dim: expected a multiple of block_size {block_size} and mimo_groups {mimo_groups}, got {dim}"
            )
        self.norm = ComplexRMSNorm(dim)
        self.rotation = GatedBlockRotation(dim, block_size)
        self.conv = CausalConv(dim, d_conv)
        self.gate_theta = nn.Parameter(torch.zeros(dim))
        self.mixer = SelectiveStates(dim, state_dim, mimo_groups)
        self.out = ComplexLinear(dim, dim)
        self.residual = nn.Parameter(torch.tensor(1 / math.sqrt(2 * num_layers)))
        self.gate_theta._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, psi: Tensor) -> Tensor:
        planes = self.conv(self.rotation(self.norm.planes(psi)))
        return psi + self.residual * self.out(self.mixer(magnitude_gate(planes, self.gate_theta)))

    def start(self, batch: int) -> SpinorState:
        """The state before the first position of ``batch`` sequences."""
        width, dim, _ = self.conv.taps.shape
        history = self.conv.taps.new_zeros(batch, width - 1, 2 * dim)
        return SpinorState(history, history.new_zeros(batch, len(self.mixer.frequency), dtype=torch.complex64))

    def advance(self, psi: Tensor, state: SpinorState) -> tuple[Tensor, SpinorState]:
        """What :meth:`forward` gives for ``psi [B, S, dim]`` behind the positions that left ``state``, and the state
        these leave."""
        planes, history = self.conv.advance(self.rotation(self.norm.planes(psi)), state.history)
        mixed, states = self.mixer.advance(magnitude_gate(planes, self.gate_theta), state.states)
        return psi + self.residual * self.out(mixed), SpinorState(history, states)


def magnitude_gate(planes: Tensor, theta: Tensor) -> Tensor:
    """``x (1 - exp(-|x|^2 e^theta))`` on planar ``[..., 2 D]``: small entries are suppressed, phases kept.

    ``theta`` is real ``[D]``.
    """
    return scale_planes(planes, -torch.expm1(-planar_intensity(planes) * theta.exp()))


class GatedBlockRotation(nn.Module):
    """``x + g (U x - x)`` with ``g = sigmoid(1.7015 Lin([Re x, Im x]))`` real and U complex, block-diagonal, near the
    identity at the start. Planar ``[..., 2 dim]`` to the same."""

    def __init__(self, dim: int, block_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * dim, dim)
        noise = 0.2 * torch.randn(dim // block_size, block_size, block_size, 2) / math.sqrt(block_size)
        noise[..., 0] += torch.eye(block_size)
        self.blocks = nn.Parameter(noise)
        self.blocks._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, planes: Tensor) -> Tensor:
        gate = torch.sigmoid(_GATE_SLOPE * self.gate(planes).float())
        blocks, size, _, _ = self.blocks.shape
        grouped = planes.reshape(-1, 2, blocks, size).permute(2, 0, 1, 3).reshape(blocks, -1, 2 * size)
        matrix = real_matrix(self.blocks, planar_in=True, planar_out=True)
        turned = torch.bmm(grouped, matrix.transpose(1, 2)).float()
        turned = turned.reshape(blocks, -1, 2, size).permute(1, 2, 0, 3).reshape_as(planes)
        return planes + scale_planes(turned - planes, gate)


class CausalConv(nn.Module):
    """Complex depthwise convolution over the last ``width`` positions. Planar ``[B, S, 2 dim]`` to the same.

    The bias is a wave that does not turn with the position. What the gates do to it becomes content that any position
    can read, so it does not start at zero.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        taps = 0.3 * torch.randn(width, dim, 2) / math.sqrt(2 * width)
        taps[-1, :, 0] += 1.0
        self.taps = nn.Parameter(taps)
        self.bias = nn.Parameter(0.35 * torch.randn(2 * dim))
        self.taps._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, planes: Tensor) -> Tensor:
        return _CausalConv.apply(planes, *self._planar_taps()) + self.bias

    def advance(self, planes: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` gives behind ``history``, the last ``width - 1`` inputs, and the history it leaves."""
        padded = torch.cat([history, planes], 1)
        return _convolve(padded, *self._planar_taps()) + self.bias, padded[:, planes.shape[1] :].clone()

    def _planar_taps(self) -> tuple[Tensor, Tensor]:
        real, imag = self.taps.unbind(-1)
        return torch.cat([real, real], -1), torch.cat([-imag, imag], -1)


def _convolve(padded: Tensor, direct: Tensor, crossed: Tensor) -> Tensor:
    width = len(direct)
    length = padded.shape[1] - width + 1
    swapped = _swap(padded)
    out = padded[:, :length] * direct[0]
    for k in range(width):
        if k:
            out.addcmul_(padded[:, k : k + length], direct[k])
        out.addcmul_(swapped[:, k : k + length], crossed[k])
    return out


class _CausalConv(Function):
    """``out_t = sum_k direct_k x_{t+k} + crossed_k swap(x)_{t+k}`` on zero-padded planar ``x``, ``swap`` exchanging the
    planes. By hand because each slice of a recorded sum costs a full-size buffer in the backward."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, direct: Tensor, crossed: Tensor) -> Tensor:
        ctx.save_for_backward(planes, direct, crossed)
        return _convolve(_pad(planes, len(direct)), direct, crossed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        planes, direct, crossed = ctx.saved_tensors
        width, length = len(direct), planes.shape[1]
        padded = _pad(planes, width)
        swapped, grad_swapped, crossed_swapped = _swap(padded), _swap(grad), _swap(crossed)
        grad_padded = torch.zeros_like(padded)
        grad_direct, grad_crossed = torch.empty_like(direct), torch.empty_like(crossed)
        for k in range(width):
            at = slice(k, k + length)
            grad_padded[:, at].addcmul_(grad, direct[k]).addcmul_(grad_swapped, crossed_swapped[k])
            grad_direct[k] = (grad * padded[:, at]).sum((0, 1))
            grad_crossed[k] = (grad * swapped[:, at]).sum((0, 1))
        return grad_padded[:, width - 1 :], grad_direct, grad_crossed


def _pad(planes: Tensor, width: int) -> Tensor:
    return functional.pad(planes, (0, 0, width - 1, 0))


def _swap(planes: Tensor) -> Tensor:
    real, imag = planes.chunk(2, dim=-1)
    return torch.cat([imag, real], -1)


class SelectiveStates(nn.Module):
    """The state space: ``h_t = A_t h_{t-1} + dt_mag B x_t``, ``y_t = C h_t`` in ``groups`` groups.

    ``A_t = exp(-dt_mag softplus(a)) e^{i dt_phase phi}``, so ``|A_t| < 1``; the two time steps of a group are clamped
    exponentials of a linear map of the token. Shapes: planar ``[B, S, 2 dim]`` to complex64 ``[B, S, dim]``.
    """

    def __init__(self, dim: int, state_dim: int, groups: int) -> None:
        super().__init__()
        size = dim // groups
        self.groups = groups
        self.time_steps = nn.Linear(2 * dim, 2 * groups)
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

    def forward(self, planes: Tensor) -> Tensor:
        return self.advance(planes, None)[0]

    def advance(self, planes: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output behind ``state`` (complex64 ``[B, groups * state_dim]``; zeros if None), and the last state."""
        batch, length, _ = planes.shape
        log_dt = self.time_steps(planes).float()
        dt_mag, dt_phase = log_dt.exp().clamp(*_DT_RANGE).chunk(2, dim=-1)
        groups = self.groups
        grouped = planes.reshape(batch * length, 2, groups, -1).permute(2, 0, 1, 3).reshape(groups, batch * length, -1)
        drive = _group_map(grouped, real_matrix(self.into, planar_in=True))
        with torch.autocast(planes.device.type, enabled=False):
            states, last = scan(
                drive.reshape(batch, length, -1, 2),
                dt_mag,
                dt_phase,
                functional.softplus(self.raw_decay),
                self.frequency,
                None if state is None else torch.view_as_real(state),
            )
        grouped = states.reshape(batch * length, groups, -1).transpose(0, 1)
        out = _group_map(grouped, real_matrix(self.out_of))
        return torch.view_as_complex(out.reshape(batch, length, -1, 2)), torch.view_as_complex(last)


def _group_map(grouped: Tensor, matrix: Tensor) -> Tensor:
    """``[G, rows, in]`` times ``matrix [G, out, in]`` transposed, as ``[rows, G, out]`` float32."""
    return torch.bmm(grouped, matrix.transpose(1, 2)).float().transpose(0, 1).contiguous()
