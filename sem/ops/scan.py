"""scan: the complex selective scan along time, and its exact reverse-time gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops import boundary
from sem.ops.registration import first_order, register_row_vmap
from sem.precision import note_autocast


def scan(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``h_t = A_t h_{t-1} + dt_mag_t x_t``, ``A_t = exp(-dt_mag_t decay) exp(i dt_phase_t frequency)``.

    The channels come in ``G`` groups of ``C / G`` neighbours that share their time steps; ``|A| <= 1``.
    A sequence run in two parts, the final state of the first given to the second, gives the bits of one run.

    Args:
        x: ``[B, S, C]`` complex64, or real blocks ``[B, S, C, 2]`` in float32, bfloat16 or float16 (widened).
        dt_mag: ``[B, S, G]`` real, ``>= 0``; ``G`` divides ``C``. A step with both dt zero keeps the state.
        dt_phase: ``[B, S, G]`` real. Phases ``dt_phase * frequency`` of 8000 radians and more give NaN.
        decay: ``[C]`` real, ``>= 0``, per unit of ``dt_mag``.
        frequency: ``[C]`` real, radians per unit of ``dt_phase``.
        initial_state: ``[B, C]`` complex64 or real blocks ``[B, C, 2]``; zeros if None.

    Returns:
        ``(states, final_state)``: every ``h_t``, ``[B, S, C]``, and the last, ``[B, C]`` (the initial state
        if ``S = 0``), in the form of ``x`` (complex64, or float32 real blocks). Computed in float32 whatever
        autocast says; NaN stays in its batch row and channel; a row's bits depend on that row alone.

    Gradients: exact, first order, to all six inputs. With ``g`` the gradient to ``h`` and, backwards in time,
    ``l_t = g_t + conj(A_{t+1}) l_{t+1}`` and ``w_t = conj(l_t) A_t h_{t-1}``: ``g_x = dt_mag l`` and
    ``g_initial_state = conj(A_1) l_1``; over batch and time ``g_decay = -sum dt_mag Re w`` and
    ``g_frequency = -sum dt_phase Im w``; over the channels of a group
    ``g_dt_mag = sum Re(conj(l) x) - decay Re w`` and ``g_dt_phase = -sum frequency Im w``. ``A`` is computed
    again, not stored. The order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; float64 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices, a negative ``dt_mag`` or ``decay``
            (checked on the CPU).

    In plain torch: a loop ``h = a[:, t] * h + m[:, t] * x[:, t]``, see :func:`sem.ops.reference.scan`.

    Example:
        >>> x = torch.randn(2, 100, 64, dtype=torch.complex64)
        >>> dt = torch.full((2, 100, 4), 0.1)
        >>> states, final_state = scan(x, dt, dt, torch.ones(64), torch.ones(64))
        >>> states.shape, torch.equal(final_state, states[:, -1])
        (torch.Size([2, 100, 64]), True)
    """
    blocks, restore = boundary.wave("x", x, dims=3)
    note_autocast("scan", blocks.device.type)
    if blocks.dim() != 4:
        raise ValueError(f"x: expected shape [B, S, C], got {list(blocks.shape[:-1])}")
    batch, steps, channels, _ = blocks.shape
    mag = boundary.real("dt_mag", dt_mag)
    if mag.dim() != 3 or mag.shape[:2] != (batch, steps):
        raise ValueError(f"dt_mag: expected shape [{batch}, {steps}, G], got {list(mag.shape)}")
    groups = mag.shape[2]
    if groups == 0 or channels % groups != 0:
        raise ValueError(f"dt_mag: expected G (groups) to divide C = {channels}, got G = {groups}")
    phase = boundary.real("dt_phase", dt_phase, mag.shape)
    rate = boundary.real("decay", decay, (channels,))
    turn = boundary.real("frequency", frequency, (channels,))
    state = (
        blocks.new_zeros(batch, channels, 2)
        if initial_state is None
        else boundary.wave("initial_state", initial_state)[0]
    )
    if state.shape != (batch, channels, 2):
        raise ValueError(f"initial_state: expected shape [{batch}, {channels}], got {list(state.shape[:-1])}")
    named = {"dt_mag": mag, "dt_phase": phase, "decay": rate, "frequency": turn, "initial_state": state}
    for name, tensor in named.items():
        boundary.same_device(name, tensor, blocks)
    states, final_state = _Scan.apply(blocks, mag, phase, rate, turn, state)
    return restore(states), restore(final_state)


@torch.library.custom_op("sem::scan_forward", mutates_args=())
def scan_forward(
    x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """``x`` ``[B, S, C, 2]``, ``initial_state`` ``[B, C, 2]`` to ``(states, final_state)``, all float32."""
    if x.device.type == "cpu":
        boundary.require_nonnegative("dt_mag", dt_mag.flatten())
        boundary.require_nonnegative("decay", decay)
    states, final_state = torch.empty_like(x), torch.empty_like(initial_state)
    native.backend(x.device.type).scan_forward(
        _shape(x, dt_mag),
        x.data_ptr(),
        dt_mag.data_ptr(),
        dt_phase.data_ptr(),
        decay.data_ptr(),
        frequency.data_ptr(),
        initial_state.data_ptr(),
        states.data_ptr(),
        final_state.data_ptr(),
        torch.get_num_threads(),
    )
    return states, final_state


@scan_forward.register_fake
def _(
    x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(initial_state)


@torch.library.custom_op("sem::scan_backward", mutates_args=())
def scan_backward(
    grad_states: Tensor,
    grad_final: Tensor,
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients to ``(x, dt_mag, dt_phase, decay, frequency, initial_state)``."""
    inputs = (x, dt_mag, dt_phase, decay, frequency, initial_state)
    grads = _empty_gradients(*inputs)
    native.backend(x.device.type).scan_backward(
        _shape(x, dt_mag),
        *(tensor.data_ptr() for tensor in inputs),
        states.data_ptr(),
        grad_states.data_ptr(),
        grad_final.data_ptr(),
        *(grad.data_ptr() for grad in grads),
        torch.get_num_threads(),
    )
    return grads


@scan_backward.register_fake
def _(
    grad_states: Tensor,
    grad_final: Tensor,
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_gradients(x, dt_mag, dt_phase, decay, frequency, initial_state)


register_row_vmap(scan_forward, row_args=(0, 1, 2, 5), per_row_outputs=(True, True))
register_row_vmap(scan_backward, row_args=(0, 1, 2, 3, 4, 7, 8), per_row_outputs=(True, True, True, False, False, True))

_gradients = first_order(scan_backward, "scan")


class _Scan(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor, initial_state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return scan_forward(x, dt_mag, dt_phase, decay, frequency, initial_state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[0])

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_final: Tensor) -> tuple[Tensor, ...]:
        return _gradients(grad_states.contiguous(), grad_final.contiguous(), *ctx.saved_tensors)


def _shape(x: Tensor, dt_mag: Tensor) -> tuple[int, int, int, int]:
    """Batch, steps, channels, groups."""
    return (x.shape[0], x.shape[1], x.shape[2], dt_mag.shape[2])


def _empty_gradients(
    x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x),
        torch.empty_like(dt_mag),
        torch.empty_like(dt_phase),
        torch.empty_like(decay),
        torch.empty_like(frequency),
        torch.empty_like(initial_state),
    )
