"""Bounds on a gradient, applied to what the optimizer is about to see.

With bound ``c`` and gradient ``g`` of weights ``w``:

- ``norm``: ``g <- g min(1, c / (|g| + 1e-6))``, the norm being that of all parameters together;
- ``value``: every entry longer than ``c`` is shortened to ``c``;
- ``agc``, adaptive, for each unit by itself: ``g <- g min(1, c max(|w|, 1e-3) / |g|)``. A unit is an index of the first
  axis, a row of a matrix or a filter of a convolution; biases and gains, which have a single axis or none, are one unit
  each (A. Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization", 2021).

The length of a complex entry is its modulus. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sem.optimization_settings import ClipKind, OptimizationSettings, require_choice

LEAST_WEIGHT_NORM = 1e-3
_NORM_SHIFT = 1e-6  # torch's, in clip_grads_with_norm_


@dataclass(frozen=True)
class Clipping:
    """What is bounded, and by what.

    Args:
        kind: ``"none"``, ``"norm"``, ``"value"`` or ``"agc"``.
        bound: 0 clips nothing, whatever the kind.

    Raises:
        ValueError: there is no such kind, or the bound is negative.

    Example:
        >>> weight = nn.Parameter(torch.ones(2, 2))
        >>> weight.grad = torch.tensor([[3.0, 4.0], [0.1, 0.0]])
        >>> figures = Clipping("agc", 0.5).clip([weight], torch.linalg.vector_norm(weight.grad))
        >>> figures["clipped_share"].item(), weight.grad.norm(dim=1).tolist()  # doctest: +ELLIPSIS
        (0.5, [0.707..., 0.1...])
    """

    kind: ClipKind = "none"
    bound: float = 0.0

    def __post_init__(self) -> None:
        require_choice("gradient_clip_kind", self.kind, ClipKind)
        if not self.bound >= 0:
            raise ValueError(f"gradient_clip = {self.bound!r}: expected a number >= 0")

    @property
    def active(self) -> bool:
        """Whether anything is ever clipped."""
        return self.kind != "none" and self.bound > 0

    def clip(self, parameters: Sequence[nn.Parameter], norm: Tensor) -> dict[str, Tensor]:
        """Clip the gradients in place.

        Args:
            parameters: those without a gradient are passed over.
            norm: 0-d, of all gradients together.

        Returns:
            ``grad_norm_clipped``, the norm afterwards, and ``clipped_share``, the share of the entries (``value``) or
            units (``agc``) that were clipped, as 0-d tensors on the device; nothing where :meth:`told_by_norm` tells
            it.
        """
        with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
        if not self.active or not with_gradient:
            return {}
        if self.kind == "norm":
            nn.utils.clip_grads_with_norm_(with_gradient, self.bound, norm)
            return {}
        by_kind = _clip_values if self.kind == "value" else _clip_units
        share = by_kind(with_gradient, self.bound)
        after = nn.utils.get_total_norm([_gradient(parameter) for parameter in with_gradient])
        return {"grad_norm_clipped": after, "clipped_share": share}

    def told_by_norm(self, norm: float) -> dict[str, float]:
        """The same figures where the norm before tells them, which costs no further look at the gradient.

        Example:
            >>> Clipping("norm", 1.0).told_by_norm(0.5)
            {'grad_norm_clipped': 0.5, 'clipped_share': 0.0}
        """
        if self.kind != "norm" or not self.active:
            return {}
        factor = min(1.0, self.bound / (norm + _NORM_SHIFT))
        return {"grad_norm_clipped": norm * factor, "clipped_share": float(factor < 1)}


NO_CLIPPING = Clipping()


def build_clipping(settings: OptimizationSettings) -> Clipping:
    """The clipping that ``settings`` describe.

    Raises:
        ValueError: there is no such kind, or the bound is negative.

    Example:
        >>> build_clipping(OptimizationSettings(gradient_clip=0.1, gradient_clip_kind="agc"))
        Clipping(kind='agc', bound=0.1)
    """
    return Clipping(settings.gradient_clip_kind, settings.gradient_clip)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _clip_values(parameters: Sequence[nn.Parameter], bound: float) -> Tensor:
    """Returns the share of entries that were clipped."""
    clipped, count = [], 0
    for gradient in map(_gradient, parameters):
        length = gradient.abs()
        clipped.append((length > bound).sum())
        count += length.numel()
        if gradient.is_complex():
            gradient.mul_((bound / length).clamp(max=1.0))
        else:
            gradient.clamp_(-bound, bound)
    return torch.stack(clipped).sum() / max(1, count)


def _clip_units(parameters: Sequence[nn.Parameter], bound: float) -> Tensor:
    """Returns the share of units that were clipped."""
    gradients = [_gradient(parameter) for parameter in parameters]
    norms = [_unit_norms(gradient) for gradient in gradients]
    of_gradients = torch.cat([norm.reshape(-1) for norm in norms])
    of_weights = torch.cat([_unit_norms(parameter.detach()).reshape(-1) for parameter in parameters])
    factors = (bound * of_weights.clamp(min=LEAST_WEIGHT_NORM) / of_gradients).clamp(max=1.0)
    for gradient, norm, factor in zip(gradients, norms, factors.split([n.numel() for n in norms]), strict=True):
        gradient.mul_(factor.view_as(norm))
    return (factors < 1).sum() / max(1, len(factors))


def _unit_norms(tensor: Tensor) -> Tensor:
    """2-norms along all axes but the first, which are kept with length 1; of a vector or number, one norm."""
    if tensor.ndim < 2:
        return torch.linalg.vector_norm(tensor)
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)
