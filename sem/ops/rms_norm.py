"""complex_rms_norm: complex rows over their root mean square, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops import boundary, composed
from sem.ops.registration import first_order, register_row_vmap


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
    blocks, restore = boundary.wave("z", z)
    gain = boundary.real("gamma", gamma, blocks.shape[-2:-1])
    boundary.same_device("gamma", gain, blocks)
    floor = boundary.nonnegative("eps", eps)
    if composed.stands_in(blocks):
        out = torch.view_as_real(composed.complex_rms_norm(torch.view_as_complex(blocks), gain, floor))
    else:
        out = _RmsNorm.apply(blocks.reshape(-1, *blocks.shape[-2:]), gain, floor).reshape(blocks.shape)
    return restore(out)


# Below, z is [rows, D, 2].
@torch.library.custom_op("sem::rms_norm_forward", mutates_args=())
def rms_norm_forward(z: Tensor, gamma: Tensor, eps: float) -> Tensor:
    out = torch.empty_like(z)
    native.backend(z.device.type).rms_norm_forward(
        z.shape[0], z.shape[1], eps, z.data_ptr(), gamma.data_ptr(), out.data_ptr(), torch.get_num_threads()
    )
    return out


@rms_norm_forward.register_fake
def _(z: Tensor, gamma: Tensor, eps: float) -> Tensor:
    return torch.empty_like(z)


@torch.library.custom_op("sem::rms_norm_backward", mutates_args=())
def rms_norm_backward(grad: Tensor, z: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gradients to ``z`` and ``gamma``."""
    grads = torch.empty_like(z), torch.empty_like(gamma)
    native.backend(z.device.type).rms_norm_backward(
        z.shape[0],
        z.shape[1],
        eps,
        z.data_ptr(),
        gamma.data_ptr(),
        grad.data_ptr(),
        *(out.data_ptr() for out in grads),
        torch.get_num_threads(),
    )
    return grads


@rms_norm_backward.register_fake
def _(grad: Tensor, z: Tensor, gamma: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z), torch.empty_like(gamma)


register_row_vmap(rms_norm_forward, row_args=(0,), per_row_outputs=(True,))
register_row_vmap(rms_norm_backward, row_args=(0, 1), per_row_outputs=(True, False))

_gradients = first_order(rms_norm_backward, "complex_rms_norm")


class _RmsNorm(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, gamma: Tensor, eps: float) -> Tensor:
        return rms_norm_forward(z, gamma, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, gamma, ctx.eps = inputs
        ctx.save_for_backward(z, gamma)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return *_gradients(grad.contiguous(), *ctx.saved_tensors, ctx.eps), None
