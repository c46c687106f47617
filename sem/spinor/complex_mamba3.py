"""The spinor layer: a causal, complex, selective state-space layer along the sequence."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.layers import Affine, ComplexLinear, ComplexRMSNorm, NormWeights, RealReadout, WidelyLinear
from sem.ops import causal_conv
from sem.ops.causal_conv import causal_conv_forward
from sem.ops.complex_rms_norm import complex_rms_norm_forward
from sem.ops.kernels import takes_step
from sem.ops.spinor_step import spinor_step
from sem.ops.wave_gate import wave_gate_forward
from sem.spinor.gates import GatedBlockRotation, RotationWeights
from sem.spinor.states import DT_RANGE, SelectiveStates, StateWeights


class SpinorState(NamedTuple):
    """What the positions seen so far leave to those that follow, in one layer, in float32 real blocks.

    ``history [B, d_conv - 1, dim, 2]``: the convolution's last inputs, zeros before the first position.
    ``states [B, groups * state_dim, 2]``: the scan's state.
    """

    history: Tensor
    states: Tensor


class SpinorWeights(NamedTuple):
    """A layer as it is computed: ``offset [dim, 2]`` is the convolution's bias, ``gate`` the output gate's map of real
    blocks, ``out`` the real matrix of the last map with the residual's scale in it; the rest as it is learned."""

    norm: NormWeights
    rotation: RotationWeights | None
    taps: Tensor
    offset: Tensor
    theta: Tensor
    states: StateWeights
    gate: Affine | None
    out: Tensor

    def mix(
        self, x: Tensor, history: Tensor | None = None, states: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The layer for real blocks ``x [B, S, dim, 2]``, the convolution's inputs, and the scan's last state."""
        normed = complex_rms_norm_forward(x.flatten(0, 1), *self.norm)
        turned = (normed if self.rotation is None else self.rotation.rotate(normed)).view(x.shape)
        if history is None:
            history = x.new_zeros(len(x), len(self.taps) - 1, *x.shape[2:])
        gated = causal_conv_forward(turned, history, self.taps, self.offset, self.theta)
        mixed, last = self.states.advance(gated, states)
        if self.gate is not None:
            logits = functional.linear(normed.flatten(1), *self.gate).float()
            mixed = wave_gate_forward(mixed.flatten(0, 1), logits).view(x.shape)
        return x + functional.linear(mixed.flatten(-2), self.out).float().view(x.shape), turned, last

    def _arguments(self) -> tuple[Any, ...]:
        """Those of :data:`spinor_step` between the state and the limits of the time steps."""
        nothing = self.out.new_empty(0)  # stands for what the layer does without
        rotation = (nothing,) * 3 if self.rotation is None else (*self.rotation.gate, self.rotation.blocks)
        gate = (nothing,) * 2 if self.gate is None else self.gate
        conv = self.taps, self.offset, self.theta
        time_steps, *maps = self.states
        return (*self.norm, *rotation, *conv, *time_steps, *maps, *gate, self.out)

    def advance(self, x: Tensor, state: SpinorState) -> tuple[Tensor, SpinorState]:
        """What the layer gives for real blocks ``x [B, S, dim, 2]`` behind the positions that left ``state``, and the
        state these leave."""
        if x.shape[1] == 1 and takes_step(x):
            out, *after = spinor_step(x.squeeze(1), *state, *self._arguments(), *DT_RANGE)
            return out.unsqueeze(1), SpinorState(*after)
        out, inputs, last = self.mix(x, *state)
        steps, kept = x.shape[1], state.history.shape[1]
        if steps < kept:
            return out, SpinorState(torch.cat([state.history[:, steps:], inputs], 1), last)
        return out, SpinorState(inputs[:, steps - kept :].clone(), last)


class ComplexMamba3Layer(nn.Module):
    """RMS norm, gated block rotation, causal convolution, magnitude gate, selective scan, output gate, projection,
    residual; rotation and output gate are optional.

    The output gate ``silu(Lin [Re z, Im z])`` of the normalised input ``z``, one real number per channel, is the only
    product behind the scan that depends on the data.

    Args:
        dim: ``D``, the complex width of a token; divisible by ``mimo_groups``, with a rotation by ``block_size``.
        rotation: whether there is a gated rotation. block_size: size of its blocks.
        output_gate: whether there is an output gate.
        projection: the last map, ``"widely_linear"`` or ``"complex"``.
        state_dim: complex states per group.
        mimo_groups: groups of ``dim / mimo_groups`` channels; a group shares its states and its time steps.
        d_conv: width of the causal depthwise convolution.
        num_layers: depth ``L`` of the stack; the residual branch starts at ``1 / sqrt(2 L)``.

    Shapes: complex64 ``[B, S, dim]`` to the same; position t sees positions up to t only.

    Raises:
        ValueError: ``dim`` is no multiple of what it has to be divisible by.

    Example:
        >>> layer = ComplexMamba3Layer(32, block_size=8, state_dim=4, mimo_groups=4)
        >>> psi = torch.randn(2, 6, 32, dtype=torch.complex64)
        >>> torch.allclose(layer(psi)[:, :3], layer(psi[:, :3]), atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        block_size: int = 8,
        state_dim: int = 128,
        mimo_groups: int = 16,
        d_conv: int = 4,
        num_layers: int = 1,
        rotation: bool = False,
        output_gate: bool = True,
        projection: Literal["widely_linear", "complex"] = "widely_linear",
    ) -> None:
        super().__init__()
        if dim % mimo_groups:
            raise ValueError(f"dim: expected a multiple of mimo_groups = {mimo_groups}, got {dim}")
        if rotation and dim % block_size:
            raise ValueError(f"dim: expected a multiple of block_size = {block_size}, got {dim}")
        self.norm = ComplexRMSNorm(dim)
        self.rotation = GatedBlockRotation(dim, block_size) if rotation else None
        self.conv = CausalConv(dim, d_conv)
        self.gate_theta = nn.Parameter(torch.zeros(dim))
        self.mixer = SelectiveStates(dim, state_dim, mimo_groups)
        self.gate = _output_gate(dim) if output_gate else None
        self.out = (WidelyLinear if projection == "widely_linear" else ComplexLinear)(dim, dim)
        self.residual = nn.Parameter(torch.tensor(1 / math.sqrt(2 * num_layers)))
        self.gate_theta._no_weight_decay = True  # type: ignore[attr-defined]

    def weights(self) -> SpinorWeights:
        """What the layer computes with, from its parameters."""
        return SpinorWeights(
            self.norm.weights(),
            None if self.rotation is None else self.rotation.weights(),
            self.conv.taps,
            self.conv.offset(),
            self.gate_theta,
            self.mixer.weights(),
            None if self.gate is None else self.gate.affine(),
            self.out.matrix(self.residual),
        )

    def forward(self, psi: Tensor) -> Tensor:
        """``psi``, complex64 ``[B, S, dim]``, after the layer; the convolution and the states begin at zero before
        position 0."""
        out, _, _ = self.weights().mix(torch.view_as_real(psi.resolve_conj()))
        return torch.view_as_complex(out)

    def start(self, batch: int) -> SpinorState:
        """The state before the first position of ``batch`` sequences."""
        taps = self.conv.taps
        width, dim, _ = taps.shape
        history = taps.new_zeros(batch, width - 1, dim, 2)
        return SpinorState(history, taps.new_zeros(batch, len(self.mixer.frequency), 2))


def _output_gate(dim: int) -> RealReadout:
    """Half open at the start."""
    gate = RealReadout(dim, dim)
    with torch.no_grad():
        gate.weight.normal_(std=1 / math.sqrt(2 * dim))
        gate.bias.fill_(0.5)
    gate.weight._linear_map = "real"  # type: ignore[attr-defined]
    return gate


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

    def offset(self) -> Tensor:
        """The bias, ``[dim, 2]``."""
        return torch.stack(self.bias.chunk(2), -1)

    def forward(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """``x``, complex ``[B, S, dim]`` with zeros before it, convolved; ``theta``, real ``[dim]``, is the log of the
        gate's rate."""
        return causal_conv(x, self.taps, self.offset(), theta)
