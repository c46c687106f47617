"""pit: Kerr rotation and phase-information transport, which spreads a row's phases over the circle; gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary
from sem.ops.registration import Operator, only_needed
from sem.precision import note_autocast

RULES = ("score", "density_ratio")  # in the order of sem::PitRule
_MOST_BINS = 4096
_CHUNK = 2**17  # complex entries worked on at a time: arrays of 1 MiB, which stay in cache


def pit(
    psi: Tensor,
    reference_rms: Tensor | None,
    strength: Tensor | float,
    num_bins: int = 32,
    rule: str = "score",
    *,
    kerr: Tensor | None = None,
) -> Tensor:
    """Move every phase of a row toward lower phase density, then give the row the RMS ``reference_rms``.

    With ``kerr``, every phase first turns in proportion to its intensity (Kerr rotation). With
    ``sigma = 2 pi / num_bins`` and ``g(x) = exp(-x**2 / 2)`` on the circle::

        kerr_phase_d = kerr_d * |psi_d|**2 / mean |psi|**2      (0 without kerr)
        u_d   = (arg(psi_d) + kerr_phase_d) / sigma             phases counted in bins
        rho_k = sum_d g(u_d - k)                density on the bins
        n(u)  = sum_k g(u - k) rho_k            density at a phase; sum_k g(u - k) is constant to 6e-9
        score:          s_d = d/du log n(u_d)               shift_d = -strength * sigma * f(s_d)
        density_ratio:  s_d = n_uniform / n(u_d) - 1        shift_d = +strength * sigma * f(s_d)
        f(s)  = s / sqrt(1 + s**2)
        out_d = psi_d * exp(i * (kerr_phase_d + shift_d)) * reference_rms / rms(psi)

    ``score`` raises the entropy of the phase density of bunched phases for every strength in (0, 1];
    ``density_ratio`` does not in general and is here for comparison. No shift exceeds ``strength * sigma``.
    Rotating all phases of a row by one angle rotates the output by that angle up to the anisotropy of the bin
    grid: at most ``6.6e-4 * strength * sigma`` radians an entry for the score rule and ``2.4e-4`` in place of
    ``6.6e-4`` for the density ratio (measured 6.5e-4 and 2.1e-4; the estimate is ``4 pi exp(-pi**2)``).
    Multiples of a bin change nothing but rounding.

    Args:
        psi: complex64 ``[..., D]``, or its real blocks ``[..., D, 2]`` in float32, bfloat16 or float16.
            Entries that are zero, or below ``2**-100`` of the row's largest, have no phase: they are not
            counted, do not turn and get no gradient through their phase.
        reference_rms: ``[...]`` real, the root mean square ``sqrt(mean_d |out_d|**2)`` of every output
            row; None keeps the row's own.
        strength: number or one-element real tensor, the largest shift in bins.
        num_bins: bins on the circle, 4 to 4096.
        rule: ``"score"`` or ``"density_ratio"``.
        kerr: ``[D]`` real, the Kerr rotation in radians at mean intensity; None for none. A NaN or Inf in it
            makes every row NaN, those of zeros apart.

    Returns:
        The form of ``psi``: complex64 ``[..., D]`` or float32 ``[..., D, 2]``. Computed in float32 whatever
        autocast says; a row's bits depend on that row alone. A row of zeros gives zeros, a row with NaN
        or Inf gives NaN.

    Gradients, exact and of first order: ``psi`` (through the density too, so all phases of a row act on each
    other), ``reference_rms``, ``strength`` and ``kerr`` (NaN when a row is NaN). The backward pass keeps the inputs
    alone and computes the density again; neither pass holds anything of size ``D * num_bins``.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices, ``num_bins`` or ``rule`` out of
            range.
        NotImplementedError: a second derivative was asked for.

    In plain torch: :func:`sem.ops.reference.pit`. The density is a fast Gauss transform (Greengard and
    Strain, 1991) with one polynomial per half bin; see ``csrc/cpu/circle_density.hpp``.

    Example:
        >>> psi = torch.polar(torch.ones(4), torch.tensor([0.0, 0.1, 0.2, 3.0]))
        >>> pit(psi, None, 1.0).angle()[:3].diff() > 0.1
        tensor([True, True])
    """
    rows, restore, shape = boundary.wave_rows("psi", psi)
    note_autocast("pit", rows.device.type)
    if reference_rms is None:
        reference = rows.new_empty(0)
    else:
        reference = boundary.real("reference_rms", reference_rms, shape).reshape(len(rows))
        boundary.same_device("reference_rms", reference, rows)
    scale = boundary.scalar("strength", strength, rows)
    if kerr is None:
        rotation = rows.new_empty(0)
    else:
        rotation = boundary.real("kerr", kerr, rows.shape[1:2])
        boundary.same_device("kerr", rotation, rows)
    bins = bin_count(num_bins)
    number = RULES.index(boundary.choice("rule", rule, RULES))
    return restore(pit_forward(rows, reference, scale, rotation, bins, number))


@torch.no_grad()
def phase_entropy(psi: Tensor, num_bins: int = 32) -> Tensor:
    """Entropy of the phase density of every row over ``log(num_bins)``: 1 for an even spread.

    Args:
        psi: complex64 ``[..., D]`` or real blocks ``[..., D, 2]``, as for :func:`pit`.
        num_bins: bins on the circle; the density is the circular Gaussian estimate of :func:`pit`.

    Returns:
        float32 ``[...]`` without a gradient. A row of zeros, having no phases, counts as spread evenly (1);
        a row with NaN or Inf gives NaN. Rows go through in chunks; no tensor has both D and bins as axes.

    Example:
        >>> bool(phase_entropy(torch.ones(8, dtype=torch.complex64)) < 0.6)
        True
    """
    rows, _, shape = boundary.wave_rows("psi", psi)
    note_autocast("phase_entropy", rows.device.type)
    bins = bin_count(num_bins)
    waves = torch.view_as_complex(rows)
    parts = [_entropy(part, bins) for part in waves.split(max(1, _CHUNK // waves.shape[1]))]
    return torch.cat(parts).reshape(shape)


def _entropy(waves: Tensor, bins: int) -> Tensor:
    """Entropy of ``[rows, D]`` by Poisson summation: with ``c_h = sum_d exp(i h theta_d)``, the density on
    bin ``k`` is proportional to ``sum_h exp(-(h sigma)**2 / 2) Re(c_h exp(-i h k sigma))``, whose terms from
    ``h = bins`` on are below 6e-9."""
    size = waves.abs()
    unit = torch.where(size > 0, waves / size, 0)
    power = (size > 0).to(waves.dtype)
    sums = []
    for _ in range(bins):
        sums.append(power.sum(-1))
        power *= unit
    moments = torch.stack(sums, -1).to(torch.complex128)
    h = torch.arange(bins, dtype=torch.float64, device=waves.device)
    weight = torch.exp(-0.5 * (2 * math.pi / bins * h).square())
    weight[1:] *= 2
    angle = (2 * math.pi / bins) * h.unsqueeze(1) * h
    density = (moments.real * weight) @ angle.cos() + (moments.imag * weight) @ angle.sin()
    share = density.clamp(min=0) / moments.real[:, :1] / bins
    entropy = torch.special.entr(share).sum(-1) / math.log(bins)
    entropy = torch.where((size > 0).any(-1), entropy, 1.0)
    return torch.where(torch.isfinite(waves).all(-1), entropy, math.nan).float()


def bin_count(num_bins: int) -> int:
    """``num_bins`` if it is one that :func:`pit` takes."""
    bins = boundary.count("num_bins", num_bins, least=4)
    if bins > _MOST_BINS:
        raise ValueError(f"num_bins: expected at most {_MOST_BINS}, got {bins}")
    return bins


# Below, psi is float32 [rows, D, 2]; reference_rms is [rows], or [0] where every row keeps its own RMS; kerr is [D], or
# [0] where there is no Kerr rotation.
_INPUTS = "Tensor psi, Tensor reference_rms, Tensor strength, Tensor kerr"


def _sizes(psi: Tensor, *rest: Any) -> dict[str, int]:
    return {"rows": psi.shape[0], "width": psi.shape[1]}


pit_forward = Operator(
    f"pit_forward({_INPUTS}, int num_bins, int rule) -> (Tensor out)",
    empty=lambda psi, *rest: torch.empty_like(psi),
    sizes=_sizes,
    per_row=("psi", "reference_rms", "out"),
)
pit_backward = Operator(
    f"pit_backward({_INPUTS}, Tensor grad_out, int num_bins, int rule)"
    " -> (Tensor grad_psi, Tensor grad_reference_rms, Tensor grad_strength, Tensor grad_kerr)",
    empty=lambda *args: tuple(map(torch.empty_like, args[:4])),
    sizes=_sizes,
    per_row=("psi", "reference_rms", "grad_out", "grad_psi", "grad_reference_rms"),
)
pit_backward.first_order("pit")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.num_bins, ctx.rule = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, pit_backward(*ctx.saved_tensors, grad.contiguous(), ctx.num_bins, ctx.rule))


pit_forward.differentiate(_setup_context, _backward)
