"""causal_conv: complex depthwise convolution along the sequence with a gate by magnitude, and the gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary, composed
from sem.ops.registration import Operator, only_needed


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
    inputs, restore = boundary.wave("x", x, dims=3, shape=("B", "S", "C"))
    batch, _, channels, _ = inputs.shape
    weight, _ = boundary.wave("taps", taps, dims=2, shape=("W >= 1", channels))
    offset, _ = boundary.wave("bias", bias, shape=(channels,))
    rate = inputs.new_empty(0) if theta is None else boundary.real("theta", theta, (channels,))
    past = inputs.new_zeros(batch, len(weight) - 1, channels, 2)
    if history is not None:
        past, _ = boundary.wave("history", history, dims=3, shape=past.shape[:-1])
    for name, tensor in {"taps": weight, "bias": offset, "theta": rate, "history": past}.items():
        boundary.same_device(name, tensor, inputs)
    return restore(causal_conv_forward(inputs, past, weight, offset, rate))


# Below, x is float32 [B, S, C, 2], history [B, W - 1, C, 2], taps [W, C, 2], bias [C, 2]; theta is [C], or [0] for
# none.
_INPUTS = "Tensor x, Tensor history, Tensor taps, Tensor bias, Tensor theta"


def _sizes(x: Tensor, history: Tensor, taps: Tensor, *rest: Any) -> dict[str, int]:
    batch, steps, channels, _ = x.shape
    return {"batch": batch, "steps": steps, "channels": channels, "num_taps": taps.shape[0]}


causal_conv_forward = Operator(
    f"causal_conv_forward({_INPUTS}) -> (Tensor out)",
    empty=lambda x, *rest: torch.empty_like(x),
    sizes=_sizes,
    per_row=("x", "history", "out"),
    composed=composed.causal_conv_forward,
)
causal_conv_backward = Operator(
    f"causal_conv_backward({_INPUTS}, Tensor grad_out)"
    " -> (Tensor grad_x, Tensor grad_history, Tensor grad_taps, Tensor grad_bias, Tensor grad_theta)",
    empty=lambda *args: tuple(map(torch.empty_like, args[:5])),
    sizes=_sizes,
    per_row=("x", "history", "grad_out", "grad_x", "grad_history"),
    composed=composed.causal_conv_backward,
)
causal_conv_backward.first_order("causal_conv")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, causal_conv_backward(*ctx.saved_tensors, grad.contiguous()))


causal_conv_forward.differentiate(_setup_context, _backward)
