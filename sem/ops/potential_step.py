"""potential_step: every entry of a wave turned by a potential and by its own intensity, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary, composed
from sem.ops.registration import Operator, only_needed


def potential_step(psi: Tensor, potential: Tensor, kerr: Tensor) -> Tensor:
    """``psi * exp(i (potential + kerr I))`` with ``I = |psi|^2`` over its mean in the row: the half of a split step
    that mixes no entries. It keeps every modulus.

    The mean is taken as at least the smallest normal float32, about ``1e-38``: a row of zeros stays zero.

    Args:
        psi: complex64 ``[..., D]``, or its real blocks ``[..., D, 2]`` in float32, bfloat16 or float16 (widened).
        potential: ``[..., D]`` real, in radians, as many as entries of ``psi``.
        kerr: ``[D]`` real, the angle by which an entry of the mean intensity is turned; zeros for none.

    Returns:
        The form of ``psi``: complex64 ``[..., D]`` or float32 ``[..., D, 2]``. Computed in float32 whatever autocast
        says; a row's bits depend on that row alone, and a row of ``psi`` with NaN gives NaN. Angles lose what float32
        loses: one of 1000 radians is known to 6e-5. From 2^21 on nothing of a phase is left, and none is taken.

    Gradients: exact, of first order, to all three, that of the intensities to ``psi`` included. The backward pass keeps
    the inputs alone; on the CPU the order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices.
        NotImplementedError: a second derivative was asked for (on the CPU).

    In plain torch: :func:`sem.ops.reference.potential_step`.

    Example:
        >>> psi = torch.tensor([1 + 0j, 1j])
        >>> turned = potential_step(psi, torch.tensor([torch.pi, 0.0]), torch.tensor([0.0, torch.pi]))
        >>> torch.allclose(turned, -psi, atol=1e-6)
        True
    """
    rows, restore, shape = boundary.wave_rows("psi", psi)
    width = rows.shape[1]
    angle = boundary.real("potential", potential, (*shape, width))
    strength = boundary.real("kerr", kerr, (width,))
    boundary.same_device("potential", angle, rows)
    boundary.same_device("kerr", strength, rows)
    return restore(potential_step_forward(rows, angle.reshape(rows.shape[:2]), strength))


# Below, psi is float32 [rows, D, 2] and potential [rows, D].
def _sizes(psi: Tensor, *rest: Any) -> dict[str, int]:
    return {"rows": psi.shape[0], "width": psi.shape[1]}


potential_step_forward = Operator(
    "potential_step_forward(Tensor psi, Tensor potential, Tensor kerr) -> (Tensor out)",
    empty=lambda psi, *rest: torch.empty_like(psi),
    sizes=_sizes,
    per_row=("psi", "potential", "out"),
    composed=composed.potential_step_forward,
)
potential_step_backward = Operator(
    "potential_step_backward(Tensor psi, Tensor potential, Tensor kerr, Tensor grad_out)"
    " -> (Tensor grad_psi, Tensor grad_potential, Tensor grad_kerr)",
    empty=lambda *args: tuple(map(torch.empty_like, args[:3])),
    sizes=_sizes,
    per_row=("psi", "potential", "grad_out", "grad_psi", "grad_potential"),
    composed=composed.potential_step_backward,
)
potential_step_backward.first_order("potential_step")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, potential_step_backward(*ctx.saved_tensors, grad.contiguous()))


potential_step_forward.differentiate(_setup_context, _backward)
