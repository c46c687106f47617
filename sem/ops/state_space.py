"""state_space: a selective state space in groups from its input to its output, with exact gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops import boundary
from sem.ops.registration import first_order, register_row_vmap
from sem.precision import note_autocast


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
    wave, are never in memory. For the backward it keeps the inputs and the state before every 64th step. CPU only;
    elsewhere compose it from products and the scan.

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
        form of ``x`` (complex64, or float32 real blocks). The products too are in float32 whatever autocast says. NaN
        stays in its batch row and group and does not go back in time; a row's bits depend on that row alone, and a
        position's on no later one.

    Gradients: exact, first order, to all eight inputs. With ``g`` the gradient to ``y`` and, backwards in time,
    ``l_t = C^H g_t + conj(A_{t+1}) l_{t+1}`` and ``w_t = conj(l_t) A_t h_{t-1}``: ``g_x = dt_mag B^H l``,
    ``g_into = sum l (dt_mag x)^H``, ``g_out_of = sum g h^H``, and those to the other four are the scan's. The states
    are computed again, not stored. The order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; float64 is refused, never narrowed.
        ValueError: shapes that do not fit, a tensor that is not on the CPU, a negative ``dt_mag`` or ``decay``.

    In plain torch: ``einsum``, a loop over time, ``einsum``, see :func:`sem.ops.reference.state_space`.

    Example:
        >>> x = torch.randn(2, 100, 32, dtype=torch.complex64)
        >>> dt = torch.full((2, 100, 4), 0.1)
        >>> into = torch.randn(4, 16, 8, dtype=torch.complex64)
        >>> y, state = state_space(x, dt, dt, into, into.mT.contiguous(), torch.ones(64), torch.ones(64))
        >>> y.shape, state.shape
        (torch.Size([2, 100, 32]), torch.Size([2, 64]))
    """
    blocks, restore = boundary.wave("x", x, dims=3)
    note_autocast("state_space", blocks.device.type)
    if blocks.device.type != "cpu":
        raise ValueError(f"x: expected a tensor on the CPU, got {blocks.device}; use sem.ops.scan between products")
    if blocks.dim() != 4:
        raise ValueError(f"x: expected shape [B, S, D], got {list(blocks.shape[:-1])}")
    batch, steps, dim, _ = blocks.shape
    mag = boundary.real("dt_mag", dt_mag)
    if mag.dim() != 3 or mag.shape[:2] != (batch, steps):
        raise ValueError(f"dt_mag: expected shape [{batch}, {steps}, G], got {list(mag.shape)}")
    groups = mag.shape[2]
    if groups == 0 or dim % groups != 0:
        raise ValueError(f"dt_mag: expected G (groups) to divide D = {dim}, got G = {groups}")
    phase = boundary.real("dt_phase", dt_phase, mag.shape)
    width = dim // groups
    drives = boundary.wave("into", into, dims=3)[0]
    if drives.dim() != 4 or drives.shape[0] != groups or drives.shape[2] != width or drives.shape[1] == 0:
        raise ValueError(f"into: expected shape [{groups}, N, {width}], got {list(drives.shape[:-1])}")
    states = drives.shape[1]
    reads = boundary.wave("out_of", out_of, dims=3)[0]
    if reads.shape != (groups, width, states, 2):
        raise ValueError(f"out_of: expected shape [{groups}, {width}, {states}], got {list(reads.shape[:-1])}")
    channels = groups * states
    rate = boundary.real("decay", decay, (channels,))
    turn = boundary.real("frequency", frequency, (channels,))
    state = (
        blocks.new_zeros(batch, channels, 2)
        if initial_state is None
        else boundary.wave("initial_state", initial_state)[0]
    )
    if state.shape != (batch, channels, 2):
        raise ValueError(f"initial_state: expected shape [{batch}, {channels}], got {list(state.shape[:-1])}")
    named = {"dt_mag": mag, "dt_phase": phase, "into": drives, "out_of": reads, "decay": rate, "frequency": turn}
    for name, tensor in {**named, "initial_state": state}.items():
        boundary.same_device(name, tensor, blocks)
    y, final_state, _ = _StateSpace.apply(blocks, mag, phase, drives, reads, rate, turn, state)
    return restore(y), restore(final_state)


@torch.library.custom_op("sem::state_space_forward", mutates_args=())
def state_space_forward(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """``x [B, S, D, 2]``, ``into [G, N, D / G, 2]``, ``out_of [G, D / G, N, 2]``, ``initial_state [B, G N, 2]`` to
    ``(y, final_state, checkpoints)``, all float32."""
    boundary.require_nonnegative("dt_mag", dt_mag.flatten())
    boundary.require_nonnegative("decay", decay)
    inputs = (x, dt_mag, dt_phase, into, out_of, decay, frequency, initial_state)
    outputs = _empty_outputs(x, initial_state)
    native.backend(x.device.type).state_space_forward(
        _shape(x, into), *(tensor.data_ptr() for tensor in (*inputs, *outputs)), torch.get_num_threads()
    )
    return outputs


@state_space_forward.register_fake
def _(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(x, initial_state)


@torch.library.custom_op("sem::state_space_backward", mutates_args=())
def state_space_backward(
    grad_y: Tensor,
    grad_final: Tensor,
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
    checkpoints: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients to ``(x, dt_mag, dt_phase, into, out_of, decay, frequency, initial_state)``."""
    inputs = (x, dt_mag, dt_phase, into, out_of, decay, frequency, initial_state)
    grads = _empty_gradients(*inputs)
    native.backend(x.device.type).state_space_backward(
        _shape(x, into),
        *(tensor.data_ptr() for tensor in (*inputs, checkpoints, grad_y, grad_final, *grads)),
        torch.get_num_threads(),
    )
    return grads


@state_space_backward.register_fake
def _(
    grad_y: Tensor,
    grad_final: Tensor,
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
    checkpoints: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_gradients(x, dt_mag, dt_phase, into, out_of, decay, frequency, initial_state)


register_row_vmap(state_space_forward, row_args=(0, 1, 2, 7), per_row_outputs=(True, True, True))
register_row_vmap(
    state_space_backward,
    row_args=(0, 1, 2, 3, 4, 9, 10),
    per_row_outputs=(True, True, True, False, False, False, False, True),
)

_gradients = first_order(state_space_backward, "state_space")


class _StateSpace(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        dt_mag: Tensor,
        dt_phase: Tensor,
        into: Tensor,
        out_of: Tensor,
        decay: Tensor,
        frequency: Tensor,
        initial_state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return state_space_forward(x, dt_mag, dt_phase, into, out_of, decay, frequency, initial_state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*inputs, output[2])

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_final: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        return _gradients(grad_y.contiguous(), grad_final.contiguous(), *ctx.saved_tensors)


def _shape(x: Tensor, into: Tensor) -> tuple[int, int, int, int, int]:
    """Batch, steps, groups, states and width of a group."""
    return (x.shape[0], x.shape[1], into.shape[0], into.shape[1], into.shape[2])


def _empty_outputs(x: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kept = max(0, (x.shape[1] - 1) // native.backend("cpu").state_space_checkpoint_steps)
    checkpoints = x.new_empty(x.shape[0], kept, *initial_state.shape[1:])
    return torch.empty_like(x), torch.empty_like(initial_state), checkpoints


def _empty_gradients(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x),
        torch.empty_like(dt_mag),
        torch.empty_like(dt_phase),
        torch.empty_like(into),
        torch.empty_like(out_of),
        torch.empty_like(decay),
        torch.empty_like(frequency),
        torch.empty_like(initial_state),
    )
