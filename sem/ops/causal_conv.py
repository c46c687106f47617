"""causal_conv: complex depthwise convolution along the sequence with a gate by magnitude, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops import boundary, composed
from sem.ops.registration import first_order, register_row_vmap


def causal_conv(
    x: Tensor, taps: Tensor, bias: Tensor, theta: Tensor | None = None, history: Tensor | None = None
) -> Tensor:
    """``v_t = bias + sum_k taps_k x_{t + k - W + 1}``, then ``v (1 - exp(-|v|^2 e^theta))`` where ``theta`` is given.

    Every channel has taps of its own; the last of the ``W`` meets the position itself. The gate suppresses small
    entries and keeps phases, so it is the same for a wave and the wave turned. A sequence run in two parts, the last
    ``W - 1`` inputs of the first given to the second as ``history``, gives the bits of one run.

    Args:
        x: complex64 ``[B, S, C]``, or real blocks ``[B, S, C, 2]`` in float32, bfloat16 or float16 (widened).
        taps: ``[W, C]`` complex64 or real blocks ``[W, C, 2]``, ``W >= 1``.
        bias: ``[C]`` complex64 or real blocks ``[C, 2]``.
        theta: ``[C]`` real, the log of the gate's rate; None for no gate.
        history: ``[B, W - 1, C]`` complex64 or real blocks, the inputs before the first; zeros if None.

    Returns:
        ``[B, S, C]`` in the form of ``x`` (complex64, or float32 real blocks). Computed in float32 whatever autocast
        says; an entry's bits depend on the ``W`` inputs of its channel alone.

    Gradients: exact, of first order, to all five. The backward pass keeps the inputs alone and convolves again; on the
    CPU the order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices.
        NotImplementedError: a second derivative was asked for (on the CPU).

    In plain torch: :func:`sem.ops.reference.causal_conv`.

    Example:
        >>> x = torch.tensor([[[1 + 0j], [2j], [3 + 0j]]])
        >>> causal_conv(x, torch.tensor([[1 + 0j], [10 + 0j]]), torch.zeros(1, 2))[0, :, 0]
        tensor([10.+0.j,  1.+20.j, 30.+2.j])
    """
    inputs, restore = boundary.wave("x", x, dims=3)
    if inputs.dim() != 4:
        raise ValueError(f"x: expected shape [B, S, C], got {list(inputs.shape[:-1])}")
    batch, _, channels, _ = inputs.shape
    weight, _ = boundary.wave("taps", taps, dims=2)
    if weight.dim() != 3 or weight.shape[0] == 0 or weight.shape[1] != channels:
        raise ValueError(f"taps: expected shape [W, {channels}], W >= 1, got {list(weight.shape[:-1])}")
    offset, _ = boundary.wave("bias", bias)
    if offset.shape != (channels, 2):
        raise ValueError(f"bias: expected shape [{channels}], got {list(offset.shape[:-1])}")
    rate = inputs.new_empty(0) if theta is None else boundary.real("theta", theta, (channels,))
    past = inputs.new_zeros(batch, len(weight) - 1, channels, 2)
    if history is not None:
        given, _ = boundary.wave("history", history, dims=3)
        if given.shape != past.shape:
            raise ValueError(f"history: expected shape {list(past.shape[:-1])}, got {list(given.shape[:-1])}")
        past = given
    for name, tensor in {"taps": weight, "bias": offset, "theta": rate, "history": past}.items():
        boundary.same_device(name, tensor, inputs)
    if composed.stands_in(inputs):
        wave, kernel, shift = (torch.view_as_complex(tensor) for tensor in (inputs, weight, offset))
        before = None if history is None else torch.view_as_complex(past)
        out = composed.causal_conv(wave, kernel, shift, None if theta is None else rate, before)
        return restore(torch.view_as_real(out))
    return restore(_CausalConv.apply(inputs, past, weight, offset, rate))


# Below, x is [B, S, C, 2], history [B, W - 1, C, 2], taps [W, C, 2], bias [C, 2] and theta [C], or [0] for no gate.
@torch.library.custom_op("sem::causal_conv_forward", mutates_args=())
def causal_conv_forward(x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor) -> Tensor:
    out = torch.empty_like(x)
    native.backend(x.device.type).causal_conv_forward(
        _shape(x, taps),
        x.data_ptr(),
        history.data_ptr(),
        taps.data_ptr(),
        bias.data_ptr(),
        theta.data_ptr(),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out


@causal_conv_forward.register_fake
def _(x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("sem::causal_conv_backward", mutates_args=())
def causal_conv_backward(
    grad: Tensor, x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients to ``x``, ``history``, ``taps``, ``bias`` and ``theta``."""
    inputs = (x, history, taps, bias, theta)
    grads = _empty_gradients(*inputs)
    native.backend(x.device.type).causal_conv_backward(
        _shape(x, taps),
        *(tensor.data_ptr() for tensor in inputs),
        grad.data_ptr(),
        *(out.data_ptr() for out in grads),
        torch.get_num_threads(),
    )
    return grads


@causal_conv_backward.register_fake
def _(
    grad: Tensor, x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_gradients(x, history, taps, bias, theta)


register_row_vmap(causal_conv_forward, row_args=(0, 1), per_row_outputs=(True,))
register_row_vmap(causal_conv_backward, row_args=(0, 1, 2), per_row_outputs=(True, True, False, False, False))

_gradients = first_order(causal_conv_backward, "causal_conv")


class _CausalConv(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor) -> Tensor:
        return causal_conv_forward(x, history, taps, bias, theta)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return _gradients(grad.contiguous(), *ctx.saved_tensors)


def _shape(x: Tensor, taps: Tensor) -> tuple[int, int, int, int]:
    """Batch, steps, channels, taps."""
    return (x.shape[0], x.shape[1], x.shape[2], taps.shape[0])


def _empty_gradients(
    x: Tensor, history: Tensor, taps: Tensor, bias: Tensor, theta: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x),
        torch.empty_like(history),
        torch.empty_like(taps),
        torch.empty_like(bias),
        torch.empty_like(theta),
    )
