"""Tensors with the same values and another layout or a lazy bit, and the modes of autograd an operator is called in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Views = Sequence[Tensor]
Apply = Callable[[Views], tuple[tuple[Tensor, ...], Views]]
"""From tensors to a function's outputs and to what they are differentiated by."""


def plain(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return tensor.clone(), lambda leaf: leaf


def conjugate_bit(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return (tensor.conj().resolve_conj(), torch.conj) if tensor.is_complex() else plain(tensor)


def negative_bit(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """As ``torch._neg_view`` sets it, and for real tensors as the imaginary part of a conjugate does."""
    if tensor.is_complex():  # torch does not change the sign of a complex zero
        return torch.view_as_complex(-torch.view_as_real(tensor)), torch._neg_view
    return torch.complex(torch.zeros_like(tensor), -tensor), lambda leaf: leaf.conj().imag


def strided(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Columns first where there are rows, else every second entry."""
    if tensor.dim() > 1:
        return tensor.mT.contiguous(), lambda leaf: leaf.mT
    return torch.stack([tensor, tensor], -1), lambda leaf: leaf[..., 1]


def expanded(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The first entry along the first dimension, repeated; other values than ``tensor`` has."""
    return (tensor[:1].clone(), lambda leaf: leaf.expand_as(tensor)) if tensor.dim() else plain(tensor)


def offset(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """One float after the start of its memory, so that nothing wider than a float is aligned."""
    memory = bytearray(4 + tensor.numel() * tensor.element_size())
    leaf = torch.frombuffer(memory, dtype=tensor.dtype, offset=4).reshape(tensor.shape)
    return leaf.copy_(tensor), lambda leaf: leaf


LAYOUTS = {
    "plain": plain,
    "duplicated": plain,  # the problem is another one
    "conjugate_bit": conjugate_bit,
    "negative_bit": negative_bit,
    "strided": strided,
    "expanded": expanded,
    "offset": offset,
}
MODES = ("grad", "no_grad", "inference_mode", "inference_mode_then_training")


def in_mode(apply: Apply, make: Callable[[bool], Views], mode: str) -> list[tuple[Views, Views | None]]:
    """Outputs, and gradients where ``mode`` has them, of every call that ``mode`` is made of. ``make`` is told whether
    its tensors are to be differentiated by."""
    if mode == "grad":
        return [with_gradients(apply, make(True))]
    if mode == "no_grad":
        with torch.no_grad():
            outputs, _ = apply(make(True))
        assert not any(output.requires_grad for output in outputs)
        return [(outputs, None)]
    with torch.inference_mode():
        outputs, _ = apply(make(False))
    assert all(output.is_inference() for output in outputs)
    if mode == "inference_mode":
        return [(outputs, None)]
    return [(outputs, None), with_gradients(apply, make(True))]


def with_gradients(apply: Apply, given: Views) -> tuple[Views, Views]:
    """By ``backward``, since a reentrant checkpoint refuses ``torch.autograd.grad``."""
    outputs, wanted = apply(given)
    for tensor in wanted:
        tensor.grad = None
        tensor.retain_grad()
    torch.autograd.backward(outputs, [cotangent(output) for output in outputs])
    gradients = [tensor.grad for tensor in wanted]
    assert None not in [grad if grad is None else 0 for grad in gradients]
    return [output.detach() for output in outputs], gradients


def cotangent(output: Tensor) -> Tensor:
    """Of the output's dtype and device; depends on its shape alone, and is not drawn, which vmap would forbid."""
    place = torch.arange(output.numel(), device=output.device).reshape(output.shape).to(output.dtype)
    return (0.7 * place).cos() if not output.is_complex() else torch.polar(1 + (0.7 * place).cos().real, place.real)


def double(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.complex128 if tensor.is_complex() else torch.float64)


def relative_error(value: Tensor, exact: Tensor) -> float:
    """Norm-wise; 0 for empty tensors and for two zeros, infinite where ``value`` has NaN."""
    assert value.shape == exact.shape, (value.shape, exact.shape)
    difference = float(torch.linalg.vector_norm(double(value) - double(exact)))
    if difference == 0:
        return 0.0
    return difference / float(torch.linalg.vector_norm(double(exact))) if difference == difference else float("inf")


def same_bits(first: Tensor, second: Tensor) -> bool:
    def bits(tensor: Tensor) -> bytes:
        return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().numpy().tobytes()

    return first.dtype == second.dtype and first.shape == second.shape and bits(first) == bits(second)
