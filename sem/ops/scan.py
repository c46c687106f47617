"""scan: the complex selective scan along time, and its exact reverse-time gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary
from sem.ops.registration import Operator, only_needed
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
    blocks, restore = boundary.wave("x", x, dims=3, shape=("B", "S", "C"))
    note_autocast("scan", blocks.device.type)
    batch, steps, channels, _ = blocks.shape
    mag = boundary.real("dt_mag", dt_mag, (batch, steps, "G"))
    groups = mag.shape[2]
    if groups == 0 or channels % groups != 0:
        raise ValueError(f"dt_mag: expected G (groups) to divide C = {channels}, got G = {groups}")
    phase = boundary.real("dt_phase", dt_phase, mag.shape)
    rate = boundary.real("decay", decay, (channels,))
    turn = boundary.real("frequency", frequency, (channels,))
    state = (
        blocks.new_zeros(batch, channels, 2)
        if initial_state is None
        else boundary.wave("initial_state", initial_state, shape=(batch, channels))[0]
    )
    named = {"dt_mag": mag, "dt_phase": phase, "decay": rate, "frequency": turn, "initial_state": state}
    for name, tensor in named.items():
        boundary.same_device(name, tensor, blocks)
    states, final_state = scan_forward(blocks, mag, phase, rate, turn, state)
    return restore(states), restore(final_state)


# Below, x is float32 [B, S, C, 2] and initial_state [B, C, 2].
_INPUTS = "Tensor x, Tensor dt_mag, Tensor dt_phase, Tensor decay, Tensor frequency, Tensor initial_state"


def _sizes(x: Tensor, dt_mag: Tensor, *rest: Any) -> dict[str, int]:
    batch, steps, channels, _ = x.shape
    return {"batch": batch, "steps": steps, "channels": channels, "groups": dt_mag.shape[2]}


scan_forward = Operator(
    f"scan_forward({_INPUTS}) -> (Tensor states, Tensor final_state)",
    empty=lambda x, *rest: (torch.empty_like(x), torch.empty_like(rest[-1])),
    sizes=_sizes,
    per_row=("x", "dt_mag", "dt_phase", "initial_state", "states", "final_state"),
)
scan_backward = Operator(
    f"scan_backward({_INPUTS}, Tensor states, Tensor grad_states, Tensor grad_final_state)"
    " -> (Tensor grad_x, Tensor grad_dt_mag, Tensor grad_dt_phase, Tensor grad_decay, Tensor grad_frequency,"
    " Tensor grad_initial_state)",
    empty=lambda *args: tuple(map(torch.empty_like, args[:6])),
    sizes=_sizes,
    per_row=(
        *("x", "dt_mag", "dt_phase", "initial_state", "states", "grad_states", "grad_final_state"),
        *("grad_x", "grad_dt_mag", "grad_dt_phase", "grad_initial_state"),
    ),
)
scan_backward.first_order("scan")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _backward(ctx: Any, grad_states: Tensor, grad_final_state: Tensor) -> tuple[Tensor | None, ...]:
    grads = scan_backward(*ctx.saved_tensors, grad_states.contiguous(), grad_final_state.contiguous())
    return only_needed(ctx, grads)


scan_forward.differentiate(_setup_context, _backward)
