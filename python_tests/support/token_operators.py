"""The operators on tokens one by one or a few at a time, in one list that their tests take products with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from helpers import generator
from torch import Tensor

from sem.ops import causal_conv, complex_rms_norm, gated_rotation, potential_step, reference, wave_gate
from sem.ops.causal_conv import causal_conv_backward, causal_conv_forward
from sem.ops.complex_rms_norm import complex_rms_norm_backward, complex_rms_norm_forward
from sem.ops.gated_rotation import gated_rotation_backward, gated_rotation_forward
from sem.ops.potential_step import potential_step_backward, potential_step_forward
from sem.ops.wave_gate import wave_gate_backward, wave_gate_forward

EPS = 1e-6


@dataclass
class TokenOperator:
    """``native`` and ``twin`` take the same tensors, complex ones as complex; ``rows`` says which of them
    have the batch as their first dimension. ``kernels`` take real blocks: the forward the tensors in ``order``, the
    backward the gradient after them, both the ``constants`` last."""

    name: str
    native: Callable[..., Tensor]
    twin: Callable[..., Tensor]
    problem: Callable[..., list[Tensor]]
    rows: tuple[int, ...]
    kernels: tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, ...]]]
    order: tuple[int, ...]
    constants: tuple[float, ...] = ()

    def __str__(self) -> str:
        return self.name

    def gradients(self, call: Callable[..., Tensor], inputs: list[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
        """The output, then the gradients of ``Re <weight, output>`` to every input."""
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        out = call(*leaves)
        return (out.detach(), *torch.autograd.grad(out, leaves, weight.to(out.dtype)))

    def chosen(self, inputs: list[Tensor], batch: list[int]) -> list[Tensor]:
        return [tensor[batch] if k in self.rows else tensor for k, tensor in enumerate(inputs)]

    def blocks(self, inputs: list[Tensor]) -> list[Tensor]:
        """What the kernels are given: float32, real blocks, one dimension of rows unless time is another."""
        flat = [torch.view_as_real(t).contiguous() if t.is_complex() else t for t in inputs]
        if self.order == tuple(range(len(flat))):
            flat = [t.flatten(0, 1) if k in self.rows else t for k, t in enumerate(flat)]
        return [flat[k] for k in self.order]


def weight_like(tensor: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator(seed))


def _normal(seed: int, *shape: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


def norm_problem(batch: int = 2, steps: int = 5, width: int = 6, seed: int = 0) -> list[Tensor]:
    """A third of the entries is zero, so not active."""
    z = _normal(seed, batch, steps, width)
    z[..., 1::3] = 0
    return [z, _normal(seed + 1, width, dtype=torch.float32)]


def rotation_problem(batch: int = 2, steps: int = 5, width: int = 6, seed: int = 0) -> list[Tensor]:
    size = next(size for size in (8, 3, 2, 1) if width % size == 0)
    logits = _normal(seed + 1, batch, steps, width, dtype=torch.float32)
    return [_normal(seed, batch, steps, width), logits, _normal(seed + 2, width // size, size, size)]


def conv_problem(batch: int = 2, steps: int = 5, width: int = 6, seed: int = 0, taps: int = 4) -> list[Tensor]:
    return [
        _normal(seed, batch, steps, width),
        _normal(seed + 1, taps, width) / taps**0.5,
        _normal(seed + 2, width),
        _normal(seed + 3, width, dtype=torch.float32),
        _normal(seed + 4, batch, taps - 1, width),
    ]


def gate_problem(batch: int = 2, steps: int = 5, width: int = 6, seed: int = 0) -> list[Tensor]:
    return [_normal(seed, batch, steps, width), 3 * _normal(seed + 1, batch, steps, width, dtype=torch.float32)]


def potential_problem(batch: int = 2, steps: int = 5, width: int = 6, seed: int = 0) -> list[Tensor]:
    potential = _normal(seed + 1, batch, steps, width, dtype=torch.float32)
    return [_normal(seed, batch, steps, width), potential, 0.5 * _normal(seed + 2, width, dtype=torch.float32)]


TOKEN_OPERATORS = (
    TokenOperator(
        "complex_rms_norm",
        complex_rms_norm,
        reference.complex_rms_norm,
        norm_problem,
        (0,),
        (complex_rms_norm_forward, complex_rms_norm_backward),
        (0, 1),
        (EPS,),
    ),
    TokenOperator(
        "gated_rotation",
        gated_rotation,
        reference.gated_rotation,
        rotation_problem,
        (0, 1),
        (gated_rotation_forward, gated_rotation_backward),
        (0, 1, 2),
    ),
    TokenOperator(
        "causal_conv",
        causal_conv,
        reference.causal_conv,
        conv_problem,
        (0, 4),
        (causal_conv_forward, causal_conv_backward),
        (0, 4, 1, 2, 3),
    ),
    TokenOperator(
        "wave_gate",
        wave_gate,
        reference.wave_gate,
        gate_problem,
        (0, 1),
        (wave_gate_forward, wave_gate_backward),
        (0, 1),
    ),
    TokenOperator(
        "potential_step",
        potential_step,
        reference.potential_step,
        potential_problem,
        (0, 1),
        (potential_step_forward, potential_step_backward),
        (0, 1, 2),
    ),
)
