"""The spinor layer: a causal, complex, selective state-space layer along the sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.layers import ComplexLinear, ComplexRMSNorm, planar_intensity, real_matrix, scale_planes
from sem.ops import scan

_GATE_SLOPE = 1.7015
_DT_RANGE = (1e-4, 2.0)


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
    """Complex depthwise convolution over the last ``width`` positions. Planar ``[B, S, 2 dim]`` to the same."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        taps = 0.3 * torch.randn(width, dim, 2) / math.sqrt(2 * width)
        taps[-1, :, 0] += 1.0
        self.taps = nn.Parameter(taps)
        self.taps._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, planes: Tensor) -> Tensor:
        width, length = self.taps.shape[0], planes.shape[1]
        real, imag = self.taps.unbind(-1)
        direct, crossed = torch.cat([real, real], -1), torch.cat([-imag, imag], -1)
        padded = functional.pad(planes, (0, 0, width - 1, 0))
        swapped = torch.cat(padded.chunk(2, dim=-1)[::-1], -1)  # [im, re]
        out = padded[:, :length] * direct[0]
        for k in range(width):
            if k:
                out = torch.addcmul(out, padded[:, k : k + length], direct[k])
            out = torch.addcmul(out, swapped[:, k : k + length], crossed[k])
        return out


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
            self.time_steps.weight.mul_(0.3)
            log_dt = torch.empty(groups).uniform_(math.log(0.05), math.log(0.8))
            self.time_steps.bias.copy_(torch.cat([log_dt, torch.zeros(groups)]))
        self.into = nn.Parameter(torch.randn(groups, state_dim, size, 2) / math.sqrt(2 * size))
        self.out_of = nn.Parameter(torch.randn(groups, size, state_dim, 2) / math.sqrt(2 * state_dim))
        rate = torch.exp(torch.empty(groups * state_dim).uniform_(math.log(0.1), math.log(4.0)))
        self.raw_decay = nn.Parameter(torch.log(torch.expm1(rate)))
        self.frequency = nn.Parameter(torch.empty(groups * state_dim).uniform_(-math.pi, math.pi))
        for parameter in (self.raw_decay, self.frequency):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, planes: Tensor) -> Tensor:
        batch, length, _ = planes.shape
        log_dt = self.time_steps(planes).float()
        dt_mag, dt_phase = log_dt.exp().clamp(*_DT_RANGE).chunk(2, dim=-1)
        groups = self.groups
        grouped = planes.reshape(batch * length, 2, groups, -1).permute(2, 0, 1, 3).reshape(groups, batch * length, -1)
        drive = _group_map(grouped, real_matrix(self.into, planar_in=True))
        states, _ = scan(
            drive.reshape(batch, length, -1, 2), dt_mag, dt_phase, functional.softplus(self.raw_decay), self.frequency
        )
        grouped = states.reshape(batch * length, groups, -1).transpose(0, 1)
        out = _group_map(grouped, real_matrix(self.out_of))
        return torch.view_as_complex(out.reshape(batch, length, -1, 2))


def _group_map(grouped: Tensor, matrix: Tensor) -> Tensor:
    """``[G, rows, in]`` times ``matrix [G, out, in]`` transposed, as ``[rows, G, out]`` float32."""
    return torch.bmm(grouped, matrix.transpose(1, 2)).float().transpose(0, 1).contiguous()
