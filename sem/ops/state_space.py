"""state_space: a selective state space in groups from its input to its output, with exact gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary, composed_states, kernels
from sem.ops.registration import Operator, only_needed
from sem.precision import note_autocast, product_dtype

CHECKPOINT_STEPS = 64  # sem::kCheckpointSteps


def state_space(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``h_t = A_t h_{t-1} + m_t B x_t``, ``y_t = C h_t`` with ``A_t = exp(-m_t decay) exp(i p_t frequency)``.

    ``m`` is ``dt_mag``, ``p`` is ``dt_phase``. The states come in ``G`` groups that do not see each other: ``D / G``
    neighbouring entries of ``x`` drive ``N`` states, and the same entries of ``y`` are read from them. This is
    :func:`sem.ops.scan` between two matrix products, in one kernel: the states, ``N G / D`` times the size of the
    wave, are never in memory. For the backward it keeps the inputs and the state before every 64th step. So on the CPU;
    on other devices it is composed of products and the scan, and keeps the inputs alone.

    Args:
        x: ``[B, S, D]`` complex64, or real blocks ``[B, S, D, 2]`` in float32, bfloat16 or float16 (widened).
        dt_mag: ``[B, S, G]`` real, ``>= 0``; ``G`` divides ``D``.
        dt_phase: ``[B, S, G]`` real. Phases ``dt_phase * frequency`` of 8000 radians and more give NaN.
        into: ``B``, ``[G, N, D / G]`` complex64 or real blocks ``[G, N, D / G, 2]``.
        out_of: ``C``, ``[G, D / G, N]`` complex64 or real blocks ``[G, D / G, N, 2]``.
        decay: ``[G N]`` real, ``>= 0``, per unit of ``dt_mag``.
        frequency: ``[G N]`` real, radians per unit of ``dt_phase``.
        initial_state: ``[B, G N]`` complex64 or real blocks ``[B, G N, 2]``; zeros if None.

    Returns:
        ``(y, final_state)``: ``[B, S, D]``, and the last state, ``[B, G N]`` (the initial state if ``S = 0``), in the
        form of ``x`` (complex64, or float32 real blocks). On the CPU the products too are in float32 whatever autocast
        says, elsewhere they are in autocast's type. NaN
        stays in its batch row and group and does not go back in time; a row's bits depend on that row alone, and a
        position's on no later one.

    Gradients: exact, first order, to all eight inputs. With ``g`` the gradient to ``y`` and, backwards in time,
    ``l_t = C^H g_t + conj(A_{t+1}) l_{t+1}`` and ``w_t = conj(l_t) A_t h_{t-1}``: ``g_x = dt_mag B^H l``,
    ``g_into = sum l (dt_mag x)^H``, ``g_out_of = sum g h^H``, and those to the other four are the scan's. The states
    are computed again, not stored. The order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; float64 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices; on the CPU a negative ``dt_mag`` or ``decay``.

    In plain torch: ``einsum``, a loop over time, ``einsum``, see :func:`sem.ops.reference.state_space`.

    Example:
        >>> x = torch.randn(2, 100, 32, dtype=torch.complex64)
        >>> dt = torch.full((2, 100, 4), 0.1)
        >>> into = torch.randn(4, 16, 8, dtype=torch.complex64)
        >>> y, state = state_space(x, dt, dt, into, into.mT.contiguous(), torch.ones(64), torch.ones(64))
        >>> y.shape, state.shape
        (torch.Size([2, 100, 32]), torch.Size([2, 64]))
    """
    blocks, restore = boundary.wave("x", x, dims=3, shape=("B", "S", "D"))
    batch, steps, dim, _ = blocks.shape
    mag = boundary.real("dt_mag", dt_mag, (batch, steps, "G"))
    groups = mag.shape[2]
    if groups == 0 or dim % groups != 0:
        raise ValueError(f"dt_mag: expected G (groups) to divide D = {dim}, got G = {groups}")
    phase = boundary.real("dt_phase", dt_phase, mag.shape)
    width = dim // groups
    drives = boundary.wave("into", into, dims=3, shape=(groups, "N >= 1", width))[0]
    states = drives.shape[1]
    reads = boundary.wave("out_of", out_of, dims=3, shape=(groups, width, states))[0]
    channels = groups * states
    rate = boundary.real("decay", decay, (channels,))
    turn = boundary.real("frequency", frequency, (channels,))
    state = (
        blocks.new_zeros(batch, channels, 2)
        if initial_state is None
        else boundary.wave("initial_state", initial_state, shape=(batch, channels))[0]
    )
    named = {"dt_mag": mag, "dt_phase": phase, "into": drives, "out_of": reads, "decay": rate, "frequency": turn}
    for name, tensor in {**named, "initial_state": state}.items():
        boundary.same_device(name, tensor, blocks)
    if kernels.on_cpu(blocks):
        note_autocast("state_space", blocks.device.type)
        dtype = torch.float32
    else:
        dtype = product_dtype(blocks)
    y, final_state, _ = state_space_forward(blocks, mag, phase, drives, reads, rate, turn, state, dtype)
    return restore(y), restore(final_state)


# Below, x is float32 [B, S, D, 2], into [G, N, D / G, 2], out_of [G, D / G, N, 2], initial_state [B, G N, 2]. Only
# where the operator is composed does product_dtype say anything: the type in which products are taken.
_INPUTS = (
    "Tensor x, Tensor dt_mag, Tensor dt_phase, Tensor into, Tensor out_of, Tensor decay, Tensor frequency,"
    " Tensor initial_state"
)


def _sizes(x: Tensor, dt_mag: Tensor, dt_phase: Tensor, into: Tensor, *rest: Any) -> dict[str, int]:
    groups, states, width, _ = into.shape
    return {"batch": x.shape[0], "steps": x.shape[1], "groups": groups, "states": states, "width": width}


def _empty_outputs(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    initial_state = rest[6]
    kept = max(0, (x.shape[1] - 1) // CHECKPOINT_STEPS)
    checkpoints = x.new_empty(x.shape[0], kept, *initial_state.shape[1:])
    return torch.empty_like(x), torch.empty_like(initial_state), checkpoints


state_space_forward = Operator(
    f"state_space_forward({_INPUTS}, ScalarType product_dtype) -> (Tensor y, Tensor final_state, Tensor checkpoints)",
    empty=_empty_outputs,
    sizes=_sizes,
    per_row=("x", "dt_mag", "dt_phase", "initial_state", "y", "final_state", "checkpoints"),
    composed=composed_states.state_space_forward,
    private=1,
)
state_space_backward = Operator(
    f"state_space_backward({_INPUTS}, Tensor checkpoints, Tensor grad_y, Tensor grad_final_state,"
    " ScalarType product_dtype) -> (Tensor grad_x, Tensor grad_dt_mag, Tensor grad_dt_phase, Tensor grad_into,"
    " Tensor grad_out_of, Tensor grad_decay, Tensor grad_frequency, Tensor grad_initial_state)",
    empty=lambda *args: tuple(map(torch.empty_like, args[:8])),
    sizes=_sizes,
    per_row=(
        *("x", "dt_mag", "dt_phase", "initial_state", "checkpoints", "grad_y", "grad_final_state"),
        *("grad_x", "grad_dt_mag", "grad_dt_phase", "grad_initial_state"),
    ),
    composed=composed_states.state_space_backward,
    private=1,
)
state_space_backward.first_order("state_space")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.product_dtype = inputs
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(*tensors, output[2])


def _backward(ctx: Any, grad_y: Tensor, grad_final_state: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grads = state_space_backward(
        *ctx.saved_tensors, grad_y.contiguous(), grad_final_state.contiguous(), ctx.product_dtype
    )
    return only_needed(ctx, grads)


state_space_forward.differentiate(_setup_context, _backward)
