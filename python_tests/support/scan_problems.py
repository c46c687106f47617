"""Problems for the selective scan, and what its tests share."""

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
    decay: Tensor
    frequency: Tensor
    initial_state: Tensor

    @classmethod
    def random(cls, batch: int, steps: int, channels: int, groups: int, seed: int = 0) -> Problem:
        """dt log-uniform in [1e-3, 0.3], decay in [0.1, 8], frequency in [-pi, pi]."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.complex64, generator=generator)

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(*shape, generator=generator)

        dt = uniform(math.log(1e-3), math.log(0.3), 2, batch, steps, groups).exp()
        return cls(
            normal(batch, steps, channels),
            dt[0].contiguous(),
            dt[1].contiguous(),
            uniform(0.1, 8, channels),
            uniform(-math.pi, math.pi, channels),
            normal(batch, channels),
        )

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def double(self) -> Problem:
        return Problem(*(t.to(torch.complex128 if t.is_complex() else torch.float64) for t in self.inputs()))

    def requiring_grad(self) -> Problem:
        return Problem(*(t.detach().clone().requires_grad_() for t in self.inputs()))

    def rows(self, chosen: slice | list[int]) -> Problem:
        return Problem(
            self.x[chosen],
            self.dt_mag[chosen],
            self.dt_phase[chosen],
            self.decay,
            self.frequency,
            self.initial_state[chosen],
        )

    def steps(self, chosen: slice) -> Problem:
        return replace(self, x=self.x[:, chosen], dt_mag=self.dt_mag[:, chosen], dt_phase=self.dt_phase[:, chosen])


NAMES = [field.name for field in fields(Problem)]


def weights_for(problem: Problem, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random gradients to the states and to the final state."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(t.shape, dtype=torch.complex64, generator=generator) for t in (problem.x, problem.initial_state)
    )


def run(function, problem: Problem, weights: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Outputs, and the gradients of ``Re <weights, outputs>`` to every input."""
    problem = problem.requiring_grad()
    outputs = function(*problem.inputs())
    cotangents = [weight.to(output.dtype) for weight, output in zip(weights, outputs, strict=True)]
    return outputs, torch.autograd.grad(outputs, problem.inputs(), cotangents, materialize_grads=True)


def same_bits(first: Tensor, second: Tensor) -> bool:
    def integers(tensor: Tensor) -> Tensor:
        real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
        return real.contiguous().view(torch.int32)

    return torch.equal(integers(first), integers(second))


def native_arguments(batch: int = 2, steps: int = 5, channels: int = 6, groups: int = 3) -> list[Tensor]:
    inputs = Problem.random(batch, steps, channels, groups).inputs()
    return [torch.view_as_real(t).contiguous() if t.is_complex() else t for t in inputs]
