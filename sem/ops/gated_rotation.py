"""gated_rotation: a block-diagonal complex map entered through a gate, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary, composed
from sem.ops.registration import Operator, only_needed


def gated_rotation(x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
    """``x + g (U x - x)`` with ``g = sigmoid(1.7015 logits)`` and ``U`` block-diagonal: each entry goes as far from
    ``x`` to ``U x`` as its gate is open. (``x sigmoid(1.7015 x)`` is near GELU, hence the slope.)

    Args:
        x: complex64 ``[..., D]``, or its real blocks ``[..., D, 2]`` in float32, bfloat16 or float16 (widened).
        logits: ``[..., D]`` real, as many as entries of ``x``.
        blocks: ``[D / b, b, b]`` complex64, or real blocks ``[D / b, b, b, 2]``: the blocks of ``U``, which acts as
            ``y_i = sum_j U_ij x_j``. They need not be unitary.

    Returns:
        The form of ``x``: complex64 ``[..., D]`` or float32 ``[..., D, 2]``. Computed in float32 whatever autocast
        says; a row's bits depend on that row alone, and NaN stays in its row and block.

    Gradients: exact, of first order, to all three. The backward pass keeps the inputs alone and computes ``U x - x``
    again; on the CPU the order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices.
        NotImplementedError: a second derivative was asked for (on the CPU).

    In plain torch: :func:`sem.ops.reference.gated_rotation`.

    Example:
        >>> swap = torch.tensor([[[0, 1], [1, 0]]], dtype=torch.complex64)
        >>> gated_rotation(torch.tensor([1 + 1j, 2]), torch.tensor([0.0, 100.0]), swap)
        tensor([1.5000+0.5000j, 1.0000+1.0000j])
    """
    rows, restore, shape = boundary.wave_rows("x", x)
    width = rows.shape[1]
    gate = boundary.real("logits", logits, (*shape, width))
    matrix, _ = boundary.wave("blocks", blocks, dims=3, shape=("D / b", "b", "b"))
    groups, size = matrix.shape[0], matrix.shape[-2]
    if matrix.shape != (groups, size, size, 2) or groups * size != width:
        raise ValueError(f"blocks: expected shape [{width} / b, b, b], got {list(matrix.shape[:-1])}")
    boundary.same_device("logits", gate, rows)
    boundary.same_device("blocks", matrix, rows)
    return restore(gated_rotation_forward(rows, gate.reshape(rows.shape[:2]), matrix))


# Below, x is float32 [rows, D, 2], logits [rows, D] and blocks [G, b, b, 2].
def _sizes(x: Tensor, logits: Tensor, blocks: Tensor, *rest: Any) -> dict[str, int]:
    return {"rows": x.shape[0], "groups": blocks.shape[0], "size": blocks.shape[1]}


gated_rotation_forward = Operator(
    "gated_rotation_forward(Tensor x, Tensor logits, Tensor blocks) -> (Tensor out)",
    empty=lambda x, *rest: torch.empty_like(x),
    sizes=_sizes,
    per_row=("x", "logits", "out"),
    composed=composed.gated_rotation_forward,
)
gated_rotation_backward = Operator(
    "gated_rotation_backward(Tensor x, Tensor logits, Tensor blocks, Tensor grad_out)"
    " -> (Tensor grad_x, Tensor grad_logits, Tensor grad_blocks)",
    empty=lambda *args: tuple(map(torch.empty_like, args[:3])),
    sizes=_sizes,
    per_row=("x", "logits", "grad_out", "grad_x", "grad_logits"),
    composed=composed.gated_rotation_backward,
)
gated_rotation_backward.first_order("gated_rotation")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, gated_rotation_backward(*ctx.saved_tensors, grad.contiguous()))


gated_rotation_forward.differentiate(_setup_context, _backward)
