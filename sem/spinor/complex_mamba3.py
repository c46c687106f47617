"""The spinor layer: a causal, complex, selective state-space layer along the sequence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sem.layers import ComplexLinear, ComplexRMSNorm
from sem.ops import causal_conv
from sem.spinor.gates import GatedBlockRotation
from sem.spinor.states import SelectiveStates


class SpinorState(NamedTuple):
    """What the positions seen so far leave to those that follow, in one layer.

    ``history [B, d_conv - 1, dim]``: the convolution's last inputs, complex64, zeros before the first position.
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
        x = self.conv(self.rotation(self.norm(psi)), self.gate_theta)
        return psi + self.out(self.mixer(x), self.residual)

    def start(self, batch: int) -> SpinorState:
        """The state before the first position of ``batch`` sequences."""
        width, dim, _ = self.conv.taps.shape
        history = self.conv.taps.new_zeros(batch, width - 1, dim, dtype=torch.complex64)
        return SpinorState(history, history.new_zeros(batch, len(self.mixer.frequency)))

    def advance(self, psi: Tensor, state: SpinorState) -> tuple[Tensor, SpinorState]:
        """What :meth:`forward` gives for ``psi [B, S, dim]`` behind the positions that left ``state``, and the state
        these leave."""
        x, history = self.conv.advance(self.rotation(self.norm(psi)), state.history, self.gate_theta)
        mixed, states = self.mixer.advance(x, state.states)
        return psi + self.out(mixed, self.residual), SpinorState(history, states)


class CausalConv(nn.Module):
    """Complex depthwise convolution over the last ``width`` positions, and the magnitude gate where its ``theta`` is
    given: :func:`sem.ops.causal_conv`. Complex ``[B, S, dim]`` to the same.

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

    def forward(self, x: Tensor, theta: Tensor | None = None, history: Tensor | None = None) -> Tensor:
        return causal_conv(x, self.taps, torch.stack(self.bias.chunk(2), -1), theta, history)

    def advance(self, x: Tensor, history: Tensor, theta: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`forward` gives behind ``history``, the last ``width - 1`` inputs, and the history it leaves."""
        recent = torch.cat([history, x[:, -history.shape[1] :]], 1) if history.shape[1] else history
        return self(x, theta, history), recent[:, recent.shape[1] - history.shape[1] :].clone()
