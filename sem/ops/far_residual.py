"""far_residual: how far waves on a detector are from what it counted, per pattern, and the gradient to the waves."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sem.ops import boundary, composed_ptychography, kernels
from sem.ops.registration import Operator
from sem.precision import note_autocast

KINDS = ("amplitude", "poisson", "intensity", "amplitude_mae", "projection")  # in the order of sem::ResidualKind
LOSSES = KINDS[:-1]


class PatternStatus(IntEnum):
    """What there is to say of one pattern; of several that hold, NONFINITE, MASKED, INFINITE, DARK in this order."""

    OK = 0
    NONFINITE = 1
    """It, the probe or its patch of the object held NaN or Inf: it has no loss and no gradient."""
    DARK = 2
    """It has no counts."""
    MASKED = 3
    """It has no valid pixel."""
    INFINITE = 4
    """A Poisson loss expects no counts where there are some; such a pixel has no gradient."""


class FarResidual(NamedTuple):
    """Per pattern: ``out`` in the form of the waves, ``loss`` and ``misfit`` float32 ``[J]``, ``status`` int8 ``[J]``
    (:class:`PatternStatus`); ``to_background`` float32 ``[N, N]``."""

    out: Tensor
    loss: Tensor
    misfit: Tensor
    status: Tensor
    to_background: Tensor


def far_residual(
    waves: Tensor,
    data: Tensor,
    weight: Tensor | None = None,
    background: Tensor | None = None,
    kind: str = "amplitude",
    scale: float = 1.0,
) -> FarResidual:
    """Loss of every pattern and its gradient to the waves, or the waves with the measured moduli.

    With ``X`` the data, ``I = sum over modes of |Psi|^2 + b``, ``A = sqrt(I)`` and a weight ``w`` per pixel::

        amplitude:      L = sum w (A - X)^2 / 2                     dL/dI = w (A - X) / (2 A)
        poisson:        L = sum w (I - n + n log(n / I)), n = X^2   dL/dI = w (1 - n / I)
        intensity:      L = sum w (I - n)^2 / 2                     dL/dI = w (I - n)
        amplitude_mae:  L = sum w |A - X| / scale                   dL/dI = w sign(A - X) / (2 A scale)

    and ``out = 2 dL/dI Psi``. ``projection``: the loss of ``amplitude``, and ``out = Psi X / A`` where ``w > 0`` and
    ``A > 0``, else ``Psi``. Where ``A = 0`` there is no gradient.

    Args:
        waves: ``Psi``, ``[J, M, N, N]`` complex64 or real blocks; their order is the data's, that of ``torch.fft``.
        data: ``X``, the square roots of the counts, ``[J, N, N]`` real.
        weight: ``w >= 0``, ``[N, N]`` or ``[J, N, N]`` real; 0: no valid pixel. None: 1 everywhere.
        background: ``b >= 0``, ``[N, N]`` real. None: 0.
        kind: one of the five above.
        scale: of ``amplitude_mae``.

    Returns:
        :class:`FarResidual`. ``misfit = sum w |A - X| / sum w X``. A pattern's results do not depend on the others, and
        sums over patterns take them in order.

    Gradients: none; a derivative raises.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.

    Example:
        >>> found = far_residual(torch.full((1, 1, 1, 1), 3 + 4j), torch.full((1, 1, 1), 4.0))
        >>> found.loss, found.out.flatten(), found.misfit
        (tensor([0.5000]), tensor([0.6000+0.8000j]), tensor([0.2500]))
    """
    blocks, restore = boundary.wave("waves", waves, dims=4, shape=("J", "M", "N", "N"))
    if blocks.shape[1] == 0:
        raise ValueError(f"waves: expected shape [J, M, N, N], got {list(blocks.shape[:-1])}")
    patterns, _, *frame, _ = blocks.shape
    moduli = boundary.real("data", data, (patterns, *frame))
    optional = masks_and_floor(moduli, weight, background)
    for name, tensor in zip(("data", "weight", "background"), (moduli, *optional), strict=True):
        boundary.same_device(name, tensor, blocks)
    number = KINDS.index(boundary.choice("kind", kind, KINDS))
    note_autocast("far_residual", blocks.device.type)
    out, *rest = far_residual_kernel(blocks, moduli, *optional, number, boundary.positive("scale", scale))
    return FarResidual(restore(out), *rest)


def masks_and_floor(data: Tensor, weight: Tensor | None, background: Tensor | None) -> tuple[Tensor, Tensor]:
    """``weight`` and ``background`` as the kernel takes them beside ``data [J, N, N]``: empty for None."""
    masks = floor = data.new_empty(0)
    if weight is not None:
        masks = boundary.real("weight", weight)
        shapes = data.shape[1:], data.shape
        if masks.shape not in shapes:
            one, each = map(list, shapes)
            raise ValueError(f"weight: expected shape {one} or {each}, got {list(masks.shape)}")
    if background is not None:
        floor = boundary.real("background", background, data.shape[1:])
    return masks, floor


# Below, psi is float32 [J, M, N, N, 2], data [J, N, N], weight [0], [N, N] or [J, N, N], background [0] or [N, N].
def residual_sizes(psi: Tensor, data: Tensor, weight: Tensor, *rest: Any) -> dict[str, int]:
    """The kernel's sizes for these tensors; ``weights`` counts the arrays of weights: none, one for all patterns, or
    one each."""
    weights = 0 if weight.numel() == 0 else 1 if weight.dim() == 2 else weight.shape[0]
    return {
        "patterns": psi.shape[0],
        "modes": psi.shape[1],
        "frame": psi.shape[2] * psi.shape[3],
        "weights": weights,
    }


def _empty(psi: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    patterns = psi.shape[0]
    loss = psi.new_empty(patterns)
    status = psi.new_empty(patterns, dtype=torch.int8)
    return torch.empty_like(psi), loss, torch.empty_like(loss), status, psi.new_empty(psi.shape[2:4])


far_residual_kernel = Operator(
    "far_residual(Tensor psi, Tensor data, Tensor weight, Tensor background, int kind, float scale)"
    " -> (Tensor out, Tensor loss, Tensor misfit, Tensor status, Tensor to_background)",
    empty=_empty,
    sizes=lambda *args: {**residual_sizes(*args), "onto": False},
    composed=composed_ptychography.far_residual,
)
far_residual_kernel.first_order("far_residual", "reference.ptychographic_loss")


def far_residual_in_place(
    psi: Tensor,
    data: Tensor,
    weight: Tensor,
    background: Tensor,
    kind: int,
    reports: Sequence[Tensor],
    scale: float = 1.0,
) -> None:
    """``far_residual_kernel`` for those who call it pattern by pattern: ``out`` in place of ``psi``; loss, misfit and
    status into ``reports``. Also in float64, without a kernel. Nothing is checked, recorded or traced."""
    if psi.dtype is torch.float32 and kernels.has(far_residual_kernel.name, psi):
        loss, misfit, status = reports
        fields = {
            **residual_sizes(psi, data, weight),
            "kind": kind, "scale": scale, "onto": False, "psi": psi, "data": data, "weight": weight,
            "background": background, "out": psi, "loss": loss, "misfit": misfit, "status": status,
            "to_background": None,
        }  # fmt: skip
        kernels.call(far_residual_kernel.name, psi, fields)
        return
    found = composed_ptychography.far_residual(psi, data, weight, background, kind, scale)
    for target, value in zip((psi, *reports), found[:4], strict=True):
        target.copy_(value)
