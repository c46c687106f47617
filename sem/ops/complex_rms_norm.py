"""complex_rms_norm: complex rows over their root mean square, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary, composed
from sem.ops.registration import Operator, only_needed


def complex_rms_norm(z: Tensor, gamma: Tensor, eps: float = 1e-6) -> Tensor:
    """``z * gamma / (rms + eps)`` per row, with the RMS over active entries (``|z|^2 > 1e-12``).

    An entry that is off takes no part in the mean, so it does not make the others louder. The mean is taken as at least
    ``1e-24``: a row of zeros gives zeros and finite gradients.

    Args:
        z: complex64 ``[..., D]``, or its real blocks ``[..., D, 2]`` in float32, bfloat16 or float16 (widened).
        gamma: ``[D]`` real, the gain of each entry.
        eps: added to the RMS, at least 0.

    Returns:
        The form of ``z``: complex64 ``[..., D]`` or float32 ``[..., D, 2]``. Computed in float32 whatever autocast
        says; a row's bits depend on that row alone, and a row with NaN gives NaN.

    Gradients: exact, of first order, to ``z`` and ``gamma``. The backward pass keeps the inputs alone; on the CPU the
    order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices, a negative ``eps``.
        NotImplementedError: a second derivative was asked for (on the CPU).

    In plain torch: :func:`sem.ops.reference.complex_rms_norm`.

    Example:
        >>> z = torch.tensor([3 + 4j, 0, -5j])
        >>> complex_rms_norm(z, torch.ones(3), eps=0.0)
        tensor([0.6000+0.8000j, 0.0000+0.0000j, -0.0000-1.0000j])
    """
    rows, restore, _ = boundary.wave_rows("z", z)
    gain = boundary.real("gamma", gamma, rows.shape[1:2])
    boundary.same_device("gamma", gain, rows)
    floor = boundary.nonnegative("eps", eps)
    return restore(complex_rms_norm_forward(rows, gain, floor))


# Below, z is float32 [rows, D, 2].
def _sizes(z: Tensor, *rest: Any) -> dict[str, int]:
    return {"rows": z.shape[0], "width": z.shape[1]}


complex_rms_norm_forward = Operator(
    "complex_rms_norm_forward(Tensor z, Tensor gamma, float eps) -> (Tensor out)",
    empty=lambda z, *rest: torch.empty_like(z),
    sizes=_sizes,
    per_row=("z", "out"),
    composed=composed.complex_rms_norm_forward,
)
complex_rms_norm_backward = Operator(
    "complex_rms_norm_backward(Tensor z, Tensor gamma, Tensor grad_out, float eps)"
    " -> (Tensor grad_z, Tensor grad_gamma)",
    empty=lambda z, gamma, *rest: (torch.empty_like(z), torch.empty_like(gamma)),
    sizes=_sizes,
    per_row=("z", "grad_out", "grad_z"),
    composed=composed.complex_rms_norm_backward,
)
complex_rms_norm_backward.first_order("complex_rms_norm")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, gamma, ctx.eps = inputs
    ctx.save_for_backward(z, gamma)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, complex_rms_norm_backward(*ctx.saved_tensors, grad.contiguous(), ctx.eps))


complex_rms_norm_forward.differentiate(_setup_context, _backward)
