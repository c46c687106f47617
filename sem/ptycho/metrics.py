"""How near a reconstruction is to a known object, up to what no pattern can tell: a factor and a phase ramp."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Scores(NamedTuple):
    """``amp_ssim`` and ``amp_mae`` of the amplitudes at equal mean (``amp_mae`` in units of the truth's mean), the
    first None where the truth's do not vary; ``phase_ssim`` of the phases without their planes, None where the truth
    has none; ``complex_error``, the norm of the difference over the truth's."""

    amp_ssim: float | None
    amp_mae: float
    phase_ssim: float | None
    complex_error: float


def aligned(reconstruction: Tensor, truth: Tensor, *, newton: int = 20) -> Tensor:
    """``c p exp(i (a y + b x))`` with the ``c, a, b`` that bring it nearest to ``truth``; complex ``[H, W]`` both.

    The start is the peak of the 8-fold padded Fourier transform of ``t conj(p)``; Newton's steps follow.
    """
    p, t = reconstruction.to(torch.complex128), truth.to(torch.complex128)
    height, width = p.shape
    product = t * p.conj()
    size = (8 * height, 8 * width)
    peak = int(torch.fft.fft2(product, s=size).abs().argmax())
    slopes = torch.tensor(
        [
            2 * math.pi * _signed(peak // size[1], size[0]) / size[0],
            2 * math.pi * _signed(peak % size[1], size[1]) / size[1],
        ],
        dtype=torch.float64,
    )
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    y, x = y - y.mean(), x - x.mean()  # the slopes turn about the middle: the ramp's own phase belongs to c
    for _ in range(newton):
        # the size of s = sum t conj(p) e^(-i (a y + b x)) is to be largest
        turned = product * torch.polar(torch.ones_like(y), -(slopes[0] * y + slopes[1] * x))
        s = turned.sum()
        first = torch.stack([(-1j * r * turned).sum() for r in (y, x)])
        second = torch.stack([torch.stack([(-r * q * turned).sum() for q in (y, x)]) for r in (y, x)])
        gradient = 2 * (s.conj() * first).real
        hessian = 2 * ((s.conj() * second).real + (first.conj().unsqueeze(1) * first).real)
        if not bool(torch.linalg.eigvalsh(hessian).max() < 0):
            break
        step = torch.linalg.solve(hessian, gradient)
        slopes = slopes - step
        if float(step.abs().max()) < 1e-14:
            break
    p = p * torch.polar(torch.ones_like(y), slopes[0] * y + slopes[1] * x)
    return p * ((p.conj() * t).sum() / p.abs().square().sum().clamp_min(1e-300))


def _signed(k: int, size: int) -> int:
    return k if k < (size + 1) // 2 else k - size


def ssim(image: Tensor, truth: Tensor, data_range: float) -> float:
    """scikit-image's structural similarity of real ``[H, W]``, with its windows of 7 x 7."""
    try:  # here, since reconstructions need no scores
        from skimage.metrics import structural_similarity
    except ImportError:
        raise ImportError("scores need scikit-image: pip install 'sem[ptycho]'") from None
    return float(structural_similarity(image.double().numpy(), truth.double().numpy(), data_range=data_range))


def scores(reconstruction: Tensor, truth: Tensor, crop: int = 0) -> Scores:
    """Of complex ``[H, W]``, ``crop`` pixels inside each edge.

    A constant image has the same scores whatever the constant; print :func:`floors` beside any.

    Raises:
        ValueError: images of different shapes, of fewer than 7 pixels inside, or with numbers that are not finite.
    """
    if truth.dim() != 2 or reconstruction.shape != truth.shape:
        got = f"{list(reconstruction.shape)} and {list(truth.shape)}"
        raise ValueError(f"reconstruction, truth: expected one shape [H, W], got {got}")
    if crop < 0 or min(truth.shape) - 2 * crop < 7:
        raise ValueError(f"crop: expected to leave 7 x 7 pixels or more of {list(truth.shape)}, got {crop}")
    inside = slice(crop, -crop or None)
    p, t = (image.detach()[inside, inside].to(torch.complex128) for image in (reconstruction, truth))
    for name, image in (("reconstruction", p), ("truth", t)):
        if not bool(image.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers")
    p = aligned(p, t)
    size, wanted = p.abs(), t.abs()
    size = size * (wanted.mean() / size.mean().clamp_min(1e-300))
    error = (p * t.conj()).angle()
    phase = _without_plane(t.angle())
    spread = float(phase.max() - phase.min())
    contrast = float(wanted.max() - wanted.min())
    return Scores(
        None if contrast < 1e-6 * float(wanted.mean()) else ssim(size, wanted, contrast),
        float((size - wanted).abs().mean() / wanted.mean()),
        None if spread < 1e-9 else ssim(_without_plane(t.angle() + error), phase, spread),
        float((p - t).norm() / t.norm()),
    )


def floors(truth: Tensor, crop: int = 0) -> Scores:
    """What a constant image scores."""
    return scores(torch.ones_like(truth), truth, crop)


def _without_plane(image: Tensor) -> Tensor:
    height, width = image.shape
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    basis = torch.stack([torch.ones_like(y), y, x], -1).flatten(0, 1)
    plane = basis @ torch.linalg.lstsq(basis, image.flatten().unsqueeze(1)).solution
    return image - plane.view_as(image)
