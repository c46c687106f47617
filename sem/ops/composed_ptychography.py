"""The ptychographic operators composed of torch's own: for devices whose kernels are not built, and for float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _pixels(corner: Tensor, side: int, width: int) -> Tensor:
    """Number of every pixel of every patch in the flat object, ``[J, N, N]``."""
    along = torch.arange(side, device=corner.device)
    rows, columns = (corner[:, axis, None].long() + along for axis in (0, 1))
    return rows.unsqueeze(2) * width + columns.unsqueeze(1)


def exit_waves_forward(object: Tensor, probe: Tensor, corner: Tensor) -> Tensor:
    """``[J, M, N, N, 2]``: every mode of ``probe [1 or J, M, N, N, 2]`` times the patch of ``object [H, W, 2]`` at each
    of ``corner [J, 2]``."""
    patch = torch.view_as_complex(object).flatten()[_pixels(corner, probe.shape[2], object.shape[1])]
    return torch.view_as_real(torch.view_as_complex(probe) * patch.unsqueeze(1))


def overlap_add(waves: Tensor, object: Tensor, probe: Tensor, corner: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``waves [J, M, N, N, 2]`` back onto the object and the probe, conjugated by each other, then the sums that
    normalise both: ``|P|^2`` per pixel of the object, and ``|O|^2`` per pixel of a patch."""
    pixels = _pixels(corner, probe.shape[2], object.shape[1])
    chi, modes = torch.view_as_complex(waves), torch.view_as_complex(probe)
    flat = torch.view_as_complex(object).flatten()
    # index_put_ adds in the order of the indices, index_add_ on a GPU in none
    to_object = torch.zeros_like(flat).index_put_((pixels,), (modes.conj_physical() * chi).sum(1), accumulate=True)
    power = modes.abs().square().sum(1).expand(pixels.shape)
    illumination = torch.zeros_like(flat.real).index_put_((pixels,), power, accumulate=True)
    patch = flat[pixels]
    to_probe = patch.conj_physical().unsqueeze(1) * chi
    if len(probe) == 1:
        to_probe = to_probe.sum(0, keepdim=True)
    to_object = torch.view_as_real(to_object.view(object.shape[:2]))
    exposure = patch.abs().square().sum(0)
    return to_object, torch.view_as_real(to_probe), illumination.view(object.shape[:2]), exposure


def shift_ramp_forward(spectrum: Tensor, shift: Tensor) -> Tensor:
    """``spectrum [M, N, N, 2]`` times the phase ramp of each ``shift [J, 2]`` in pixels: ``[J, M, N, N, 2]``."""
    return torch.view_as_real(torch.view_as_complex(spectrum) * _ramp(shift, spectrum.shape[1]))


def shift_ramp_backward(spectrum: Tensor, shift: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients to ``spectrum`` and ``shift``."""
    grad, ramp = torch.view_as_complex(grad_out), _ramp(shift, spectrum.shape[1])
    to_spectrum = (ramp.conj_physical() * grad).sum(0)
    along = (grad.conj_physical() * (torch.view_as_complex(spectrum) * ramp)).imag.sum(1)
    q = torch.fft.fftfreq(spectrum.shape[1], device=shift.device, dtype=shift.dtype)
    to_shift = torch.stack([(along.sum(2) * q).sum(1), (along.sum(1) * q).sum(1)], 1)
    return torch.view_as_real(to_spectrum), 2 * math.pi * to_shift


def _ramp(shift: Tensor, side: int) -> Tensor:
    """``[J, 1, N, N]``."""
    q = torch.fft.fftfreq(side, device=shift.device, dtype=shift.dtype)
    angle = -2 * math.pi * shift.unsqueeze(-1) * q
    lines = torch.polar(torch.ones_like(angle), angle)
    return (lines[:, 0].unsqueeze(2) * lines[:, 1].unsqueeze(1)).unsqueeze(1)


def far_residual(
    psi: Tensor, data: Tensor, weight: Tensor, background: Tensor, kind: int, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Per pattern the new waves or the gradient to them, loss, misfit and status, and the gradient to the background:
    :func:`sem.ops.far_residual` with ``kind`` as its number in ``KINDS``, empty tensors for no weight and no
    background. Also in float64."""
    w = torch.ones_like(data) if weight.numel() == 0 else weight.expand_as(data)
    waves = torch.view_as_complex(psi)
    intensity = psi.square().sum((-1, 1)) + (background if background.numel() else 0)
    n, valid, lit = data.square(), w > 0, intensity >= torch.finfo(intensity.dtype).tiny
    a = torch.where(lit, intensity, 0).sqrt()
    off = a - data
    finite = (intensity.isfinite() & w.isfinite() & (data.isfinite() | (w == 0))).flatten(1).all(1)
    if kind in (0, 4):
        loss, slope = 0.5 * w * off.square(), torch.where(lit, 0.5 * w * off / a, 0)
    elif kind == 1:
        u = (intensity - n) / n
        fit = torch.where(lit, n * (u - u.log1p()), torch.inf)
        loss = w * torch.where(n == 0, intensity, fit)
        slope = torch.where(n == 0, w, torch.where(lit, w * (intensity - n) / intensity, 0))
    elif kind == 2:
        excess = off * (a + data)
        loss, slope = 0.5 * w * excess.square(), w * excess
    else:
        loss, slope = w * off.abs() / scale, torch.where(lit, 0.5 * w * off.sign() / (a * scale), 0)
    kept = valid & finite.view(-1, 1, 1)
    loss, slope = torch.where(kept, loss, 0), torch.where(kept, slope, 0)
    infinite = loss.isinf().flatten(1).any(1) & (kind == 1)
    if kind == 4:
        factor = torch.where(kept & lit, data / a, 1)
        out = torch.where(finite.view(-1, 1, 1, 1), waves * factor.unsqueeze(1), waves)
    else:
        out = torch.where(kept.unsqueeze(1), waves * (2 * slope).unsqueeze(1), 0)
    misfit = torch.where(valid, w * off.abs(), 0).sum((1, 2)) / torch.where(valid, w * data, 0).sum((1, 2))
    counted = (valid & (data > 0)).flatten(1).any(1)
    status = torch.where(counted, 0, 2)
    status = torch.where(infinite, 4, status)
    status = torch.where(valid.flatten(1).any(1), status, 3)
    status = torch.where(finite, status, 1).to(torch.int8)
    return (
        torch.view_as_real(out),
        loss.sum((1, 2)),
        torch.where(finite, misfit, torch.nan),
        status,
        slope.sum(0),
    )
