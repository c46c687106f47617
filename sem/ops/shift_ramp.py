"""shift_ramp: the phase ramp that moves a probe by a part of a pixel, pattern by pattern."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary, composed_ptychography
from sem.ops.registration import Operator, only_needed
from sem.precision import note_autocast


def shift_ramp(spectrum: Tensor, shift: Tensor) -> Tensor:
    """``S_m(q) exp(-2 pi i q . f_j)``: the spectra of a probe moved by ``f_j`` pixels, for every pattern.

    Args:
        spectrum: ``S``, ``[M, N, N]`` complex64, or real blocks ``[M, N, N, 2]``, in the order of ``torch.fft``.
        shift: ``f``, ``[J, 2]`` real, pixels along rows' number and along columns'.

    Returns:
        ``[J, M, N, N]`` in the form of ``spectrum``. Computed in float32 whatever autocast says. The ramp is unitary
        for every side, at the Nyquist frequency of an even one too (``q = -1/2`` there).

    Gradients, exact and of first order, to both: ``g_S = sum exp(2 pi i q . f_j) g`` over patterns in order, and
    ``g_f = 2 pi sum q Im(conj(g) out)`` over modes and frequencies.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices.
        NotImplementedError: a second derivative was asked for.

    In plain torch: :func:`sem.ops.reference.shift_ramp`.

    Example:
        >>> probe = torch.zeros(1, 4, 4, dtype=torch.complex64)
        >>> probe[0, 1, 1] = 1
        >>> moved = torch.fft.ifft2(shift_ramp(torch.fft.fft2(probe), torch.tensor([[1.0, 0.0]])))
        >>> int(moved.abs().argmax()) == 4 * 2 + 1
        True
    """
    blocks, restore = boundary.wave("spectrum", spectrum, dims=3, shape=("M", "N", "N"))
    if blocks.shape[1] != blocks.shape[2] or blocks.shape[0] == 0:
        raise ValueError(f"spectrum: expected shape [M, N, N], got {list(blocks.shape[:-1])}")
    moves = boundary.real("shift", shift, ("J", 2))
    boundary.same_device("shift", moves, blocks)
    note_autocast("shift_ramp", blocks.device.type)
    return restore(shift_ramp_forward(blocks, moves))


# Below, spectrum is float32 [M, N, N, 2] and shift [J, 2].
def _sizes(spectrum: Tensor, shift: Tensor, *rest: Any) -> dict[str, int]:
    return {"patterns": shift.shape[0], "modes": spectrum.shape[0], "side": spectrum.shape[1]}


shift_ramp_forward = Operator(
    "shift_ramp_forward(Tensor spectrum, Tensor shift) -> (Tensor out)",
    empty=lambda spectrum, shift: spectrum.new_empty(len(shift), *spectrum.shape),
    sizes=_sizes,
    composed=composed_ptychography.shift_ramp_forward,
)
shift_ramp_backward = Operator(
    "shift_ramp_backward(Tensor spectrum, Tensor shift, Tensor grad_out) -> (Tensor to_spectrum, Tensor to_shift)",
    empty=lambda spectrum, shift, grad_out: (torch.empty_like(spectrum), torch.empty_like(shift)),
    sizes=lambda *args: {**_sizes(*args), "onto": False},
    composed=composed_ptychography.shift_ramp_backward,
)
shift_ramp_backward.first_order("shift_ramp")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, shift_ramp_backward(*ctx.saved_tensors, grad.contiguous()))


shift_ramp_forward.differentiate(_setup_context, _backward)
