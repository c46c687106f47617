"""Problems for the selective state space, and what its tests share."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class Problem:
    x: Tensor
    dt_mag: Tensor
    dt_phase: Tensor
    into: Tensor
    out_of: Tensor
    decay: Tensor
    frequency: Tensor
    initial_state: Tensor

    @classmethod
    def random(cls, batch: int, steps: int, groups: int, states: int, width: int, seed: int = 0) -> Problem:
        """dt log-uniform in [1e-3, 0.3], decay in [0.1, 8], frequency in [-pi, pi]."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.complex64, generator=generator)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(*shape, generator=generator)

        dt = uniform(math.log(1e-3), math.log(0.3), 2, batch, steps, groups).exp()
        return cls(
            normal(batch, steps, groups * width),
            dt[0].contiguous(),
            dt[1].contiguous(),
            normal(groups, states, width),
            normal(groups, width, states),
            uniform(0.1, 8, groups * states),
            uniform(-math.pi, math.pi, groups * states),
            normal(batch, groups * states),
        )

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def double(self) -> Problem:
        return Problem(*(t.to(torch.complex128 if t.is_complex() else torch.float64) for t in self.inputs()))

    def requiring_grad(self) -> Problem:
        return Problem(*(t.detach().clone().requires_grad_() for t in self.inputs()))

    def interleaved(self) -> list[Tensor]:
        return [torch.view_as_real(t).contiguous() if t.is_complex() else t for t in self.inputs()]

    def rows(self, chosen: slice | list[int]) -> Problem:
        per_row = ("x", "dt_mag", "dt_phase", "initial_state")
        return replace(self, **{name: getattr(self, name)[chosen] for name in per_row})

    def steps(self, chosen: slice) -> Problem:
        return replace(self, **{name: getattr(self, name)[:, chosen] for name in ("x", "dt_mag", "dt_phase")})


NAMES = [field.name for field in fields(Problem)]
PER_ROW = [NAMES.index(name) for name in ("x", "dt_mag", "dt_phase", "initial_state")]
SHARED = [k for k in range(len(NAMES)) if k not in PER_ROW]


def weights_for(problem: Problem, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random gradients to the output and to the final state."""
    generator = torch.Generator().manual_seed(seed)
    y, state = (
        torch.randn(t.shape, dtype=torch.complex64, generator=generator) for t in (problem.x, problem.initial_state)
    )
    return y, state
