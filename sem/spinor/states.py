"""The state space of a spinor layer: maps into the states, the selective scan, maps out of them."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.layers import RealReadout
from sem.ops.state_space import state_space

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
    """:func:`sem.ops.state_space`; on the CPU, where it is one kernel, outside autocast."""
    with torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext():
        return state_space(x, *arguments)
