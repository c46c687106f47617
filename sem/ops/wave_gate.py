"""wave_gate: every entry of a wave times the SiLU of a logit of its own, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary, composed
from sem.ops.registration import Operator, only_needed


def wave_gate(psi: Tensor, logits: Tensor) -> Tensor:
    """``psi * silu(logits)`` entry by entry, with ``silu(l) = l sigmoid(l)``.

    Args:
        psi: complex64 ``[..., D]``, or its real blocks ``[..., D, 2]`` in float32, bfloat16 or float16 (widened).
        logits: ``[..., D]`` real, as many as entries of ``psi``; of any finite size.

    Returns:
        The form of ``psi``: complex64 ``[..., D]`` or float32 ``[..., D, 2]``. Computed in float32 whatever autocast
        says; an entry's bits depend on that entry alone, and NaN stays in it.

    Gradients: exact, of first order, to both. The backward pass keeps the inputs alone.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices.
        NotImplementedError: a second derivative was asked for (on the CPU).

    In plain torch: :func:`sem.ops.reference.wave_gate`.

    Example:
        >>> wave_gate(torch.tensor([1 + 1j, 2j]), torch.tensor([0.0, 100.0]))
        tensor([0.+0.j, 0.+200.j])
    """
    rows, restore, shape = boundary.wave_rows("psi", psi)
    gate = boundary.real("logits", logits, (*shape, rows.shape[1]))
    boundary.same_device("logits", gate, rows)
    return restore(wave_gate_forward(rows, gate.reshape(rows.shape[:2])))


# Below, psi is float32 [rows, D, 2] and logits [rows, D].
def _sizes(psi: Tensor, *rest: Any) -> dict[str, int]:
    return {"rows": psi.shape[0], "width": psi.shape[1]}


wave_gate_forward = Operator(
    "wave_gate_forward(Tensor psi, Tensor logits) -> (Tensor out)",
    empty=lambda psi, logits: torch.empty_like(psi),
    sizes=_sizes,
    per_row=("psi", "logits", "out"),
    composed=composed.wave_gate_forward,
)
wave_gate_backward = Operator(
    "wave_gate_backward(Tensor psi, Tensor logits, Tensor grad_out) -> (Tensor grad_psi, Tensor grad_logits)",
    empty=lambda psi, logits, grad_out: (torch.empty_like(psi), torch.empty_like(logits)),
    sizes=_sizes,
    per_row=("psi", "logits", "grad_out", "grad_psi", "grad_logits"),
    composed=composed.wave_gate_backward,
)
wave_gate_backward.first_order("wave_gate")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, wave_gate_backward(*ctx.saved_tensors, grad.contiguous()))


wave_gate_forward.differentiate(_setup_context, _backward)
