"""The state space of a spinor layer: maps into the states, the selective scan, maps out of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.layers import Affine, RealReadout
from sem.ops.state_space import state_space_forward
from sem.precision import product_dtype

DT_RANGE = (1e-4, 2.0)
_LOG_DT_RANGE = tuple(map(math.log, DT_RANGE))


class StateWeights(NamedTuple):
    """A state space as it is computed: ``time_steps`` on real blocks, ``decay`` positive, the rest as it is learned."""

    time_steps: Affine
    into: Tensor
    out_of: Tensor
    decay: Tensor
    frequency: Tensor

    def advance(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output for real blocks ``x [B, S, dim, 2]`` behind ``state [B, groups * state_dim, 2]`` (zeros if None),
        and the last state."""
        log_dt = functional.linear(x.flatten(-2), *self.time_steps).float()
        # bounded before the exponential, whose overflow would make a gradient of inf * 0
        dt_mag, dt_phase = log_dt.clamp(*_LOG_DT_RANGE).exp().chunk(2, dim=-1)
        if state is None:
            state = x.new_zeros(len(x), len(self.frequency), 2)
        steps = dt_mag.contiguous(), dt_phase.contiguous()
        maps = self.into, self.out_of, self.decay, self.frequency
        y, last, _ = state_space_forward(x, *steps, *maps, state, product_dtype(x))
        return y, last


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
        for parameter in (self.into, self.out_of):
            parameter._linear_map = "complex"  # type: ignore[attr-defined]
        for parameter in (self.raw_decay, self.frequency):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def weights(self) -> StateWeights:
        """What the state space computes with, from its parameters."""
        decay = functional.softplus(self.raw_decay)
        return StateWeights(self.time_steps.affine(), self.into, self.out_of, decay, self.frequency)

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_complex(self.weights().advance(torch.view_as_real(x.resolve_conj()), None)[0])
