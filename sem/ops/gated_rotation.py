"""gated_rotation: a block-diagonal complex map entered through a gate, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops import boundary, composed
from sem.ops.registration import first_order, register_row_vmap


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
    entries, restore = boundary.wave("x", x)
    width = entries.shape[-2]
    gate = boundary.real("logits", logits, entries.shape[:-1])
    matrix, _ = boundary.wave("blocks", blocks, dims=3)
    groups, size = matrix.shape[0], matrix.shape[-2]
    if matrix.shape != (groups, size, size, 2) or groups * size != width:
        raise ValueError(f"blocks: expected shape [{width} / b, b, b], got {list(matrix.shape[:-1])}")
    boundary.same_device("logits", gate, entries)
    boundary.same_device("blocks", matrix, entries)
    if composed.stands_in(entries):
        out = torch.view_as_real(composed.gated_rotation(torch.view_as_complex(entries), gate, matrix))
    else:
        out = _GatedRotation.apply(entries.reshape(-1, width, 2), gate.reshape(-1, width), matrix)
    return restore(out.reshape(entries.shape))


# Below, x is [rows, D, 2], logits [rows, D] and blocks [G, b, b, 2].
@torch.library.custom_op("sem::gated_rotation_forward", mutates_args=())
def gated_rotation_forward(x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
    out = torch.empty_like(x)
    native.backend(x.device.type).gated_rotation_forward(
        x.shape[0],
        blocks.shape[0],
        blocks.shape[1],
        x.data_ptr(),
        logits.data_ptr(),
        blocks.data_ptr(),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out


@gated_rotation_forward.register_fake
def _(x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("sem::gated_rotation_backward", mutates_args=())
def gated_rotation_backward(grad: Tensor, x: Tensor, logits: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to ``x``, ``logits`` and ``blocks``."""
    grads = torch.empty_like(x), torch.empty_like(logits), torch.empty_like(blocks)
    native.backend(x.device.type).gated_rotation_backward(
        x.shape[0],
        blocks.shape[0],
        blocks.shape[1],
        x.data_ptr(),
        logits.data_ptr(),
        blocks.data_ptr(),
        grad.data_ptr(),
        *(out.data_ptr() for out in grads),
        torch.get_num_threads(),
    )
    return grads


@gated_rotation_backward.register_fake
def _(grad: Tensor, x: Tensor, logits: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(logits), torch.empty_like(blocks)


register_row_vmap(gated_rotation_forward, row_args=(0, 1), per_row_outputs=(True,))
register_row_vmap(gated_rotation_backward, row_args=(0, 1, 2), per_row_outputs=(True, True, False))

_gradients = first_order(gated_rotation_backward, "gated_rotation")


class _GatedRotation(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
        return gated_rotation_forward(x, logits, blocks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _gradients(grad.contiguous(), *ctx.saved_tensors)
