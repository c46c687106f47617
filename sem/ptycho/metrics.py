"""How near a reconstruction is to a known object, up to what no pattern can tell, and what a score is worth."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sem.extras import how_to_install
from sem.ptycho.alignment import aligned, registered

_NO_SCORES = f"scores need scikit-image: {how_to_install('ptycho')}"


class Scores(NamedTuple):
    """A reconstruction ``p`` against a truth ``t``, after alignment.

    ``amp_*`` compare amplitudes at equal mean, ``phase_*`` phases without their planes; these are None where the truth
    has no phase, ``amp_ssim`` and ``psnr`` where its amplitudes do not vary.

    Attributes:
        amp_ssim, phase_ssim: structural similarity, ``data_range`` the truth's.
        amp_mae, phase_mae: mean absolute difference, in units of the truth's mean amplitude, and in radians.
        complex_error: ``||p - t|| / ||t||``.
        amp_r, phase_r: Pearson's correlation; 0 where one of the two is constant.
        amp_rel_std: standard deviation of the amplitudes of ``p`` over their mean.
        psnr: of the amplitudes in dB, with the truth's range; infinite for equal ones.
        phase_ssim_range_two_pi: of ``(phi + pi) / 2 pi`` at range 1, to compare with published numbers alone: it
            forgives much, a constant image scores 0.7.
    """

    amp_ssim: float | None
    amp_mae: float
    phase_ssim: float | None
    complex_error: float
    amp_r: float
    amp_rel_std: float
    psnr: float | None
    phase_mae: float | None
    phase_r: float | None
    phase_ssim_range_two_pi: float | None


def ssim(image: Tensor, truth: Tensor, data_range: float) -> float:
    """scikit-image's structural similarity of real ``[H, W]``, with its windows of 7 x 7.

    Raises:
        ImportError: scikit-image is not installed.

    Example:
        >>> image = torch.arange(64.0).view(8, 8)
        >>> ssim(image, image, data_range=63.0)
        1.0
    """
    try:  # here, since reconstructions need no scores
        from skimage.metrics import structural_similarity
    except ImportError:
        raise ImportError(_NO_SCORES) from None
    return float(structural_similarity(image.double().numpy(), truth.double().numpy(), data_range=data_range))


def scores(reconstruction: Tensor, truth: Tensor, crop: int = 0, *, register: bool = False) -> Scores:
    """Of complex ``[H, W]``, ``crop`` pixels inside each edge.

    A constant image has the same scores whatever the constant; print :func:`floors` beside any, or all of
    :func:`compare`.

    Args:
        register: move the reconstruction first (:func:`registered`): of engines with a free probe, not of networks.

    Raises:
        ValueError: images of different shapes, of fewer than 7 pixels inside, a truth of zeros, or numbers that are not
            finite.
        ImportError: scikit-image is not installed.

    Example:
        >>> from sem.ptycho import lines_object
        >>> truth = lines_object(48, 30, seed=1)
        >>> found = scores(truth * torch.exp(torch.tensor(1j)), truth, crop=4)
        >>> round(found.amp_ssim, 3), round(found.phase_ssim, 3), found.complex_error < 1e-6
        (1.0, 1.0, True)
    """
    p, t = _compared(reconstruction, truth, crop)
    if register:
        p = registered(reconstruction, truth, crop)[0][_inside(crop)]
    p = aligned(p, t)
    size, wanted = p.abs(), t.abs()
    mean = wanted.mean()
    rel_std = float(size.std(correction=0) / size.mean().clamp_min(1e-300))
    size = size * (mean / size.mean().clamp_min(1e-300))
    contrast = float(wanted.max() - wanted.min())
    varies = contrast >= 1e-6 * float(mean)
    error = (p * t.conj()).angle()
    phase, found = _without_plane(t.angle()), _without_plane(t.angle() + error)
    spread = float(phase.max() - phase.min())
    turns = spread >= max(1e-9, 8 * torch.finfo(truth.dtype).eps)  # less is rounding
    two_pi = 2 * math.pi
    squares = float((size - wanted).square().mean())
    return Scores(
        amp_ssim=ssim(size, wanted, contrast) if varies else None,
        amp_mae=float((size - wanted).abs().mean() / mean),
        phase_ssim=ssim(found, phase, spread) if turns else None,
        complex_error=float((p - t).norm() / t.norm()),
        amp_r=_pearson(size, wanted, float(mean)),
        amp_rel_std=rel_std,
        psnr=(10 * math.log10(contrast**2 / squares) if squares > 0 else math.inf) if varies else None,
        phase_mae=float((found - phase).abs().mean()) if turns else None,
        phase_r=_pearson(found, phase, 1.0) if turns else None,
        phase_ssim_range_two_pi=ssim(found / two_pi + 0.5, phase / two_pi + 0.5, 1.0) if turns else None,
    )


def floors(truth: Tensor, crop: int = 0, *, blur: float = 0.0) -> Scores:
    """What a constant image scores, or, for ``blur`` above 0, the truth under a Gaussian blur of so many pixels.

    Raises:
        ValueError: as :func:`scores`.
        ImportError: scikit-image is not installed.

    Example:
        >>> from sem.ptycho import lines_object
        >>> found = floors(lines_object(48, 30, seed=1))
        >>> found.amp_r, found.amp_rel_std < 1e-6, found.complex_error > 0.1
        (0.0, True, True)
    """
    if blur == 0:
        return scores(torch.ones_like(truth), truth, crop)
    try:
        from scipy.ndimage import gaussian_filter
    except ImportError:
        raise ImportError(_NO_SCORES) from None
    image = truth.detach().to(torch.complex128)
    return scores(torch.from_numpy(gaussian_filter(image.numpy(), blur)), truth, crop)


class Comparison(NamedTuple):
    """A reconstruction's scores beside what a constant image and the blurred truth reach; printed, it is a table."""

    reconstruction: Scores
    constant: Scores
    blurred_1_px: Scores
    blurred_2_px: Scores

    def as_dict(self) -> dict[str, dict[str, float | None]]:
        """For JSON, which knows no infinity: a number that is not finite is None."""
        return {
            name: {key: v if v is not None and math.isfinite(v) else None for key, v in found._asdict().items()}
            for name, found in self._asdict().items()
        }

    def __str__(self) -> str:
        lines = [" " * 24 + "".join(f"{name.replace('_', ' '):>16}" for name in self._fields)]
        for key in Scores._fields:
            cells = ("none" if (v := getattr(found, key)) is None else f"{v:.4f}" for found in self)
            lines.append(f"{key:24}" + "".join(f"{cell:>16}" for cell in cells))
        return "\n".join(lines)


def compare(reconstruction: Tensor, truth: Tensor, crop: int = 0, *, register: bool = False) -> Comparison:
    """:func:`scores` and all :func:`floors`.

    Example:
        >>> from sem.ptycho import lines_object
        >>> truth = lines_object(48, 30, seed=1)
        >>> found = compare(truth, truth)
        >>> found.reconstruction.amp_ssim > found.blurred_1_px.amp_ssim > found.constant.amp_ssim
        True
        >>> print(str(found).splitlines()[1][:40])
        amp_ssim                          1.0000
    """
    return Comparison(
        scores(reconstruction, truth, crop, register=register),
        floors(truth, crop),
        floors(truth, crop, blur=1),
        floors(truth, crop, blur=2),
    )


def _inside(crop: int) -> tuple[slice, slice]:
    return slice(crop, -crop or None), slice(crop, -crop or None)


def _compared(reconstruction: Tensor, truth: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """Both in complex128, what lies inside ``crop``."""
    if truth.dim() != 2 or reconstruction.shape != truth.shape:
        got = f"{list(reconstruction.shape)} and {list(truth.shape)}"
        raise ValueError(f"reconstruction, truth: expected one shape [H, W], got {got}")
    if crop < 0 or min(truth.shape) - 2 * crop < 7:
        raise ValueError(f"crop: expected to leave 7 x 7 pixels or more of {list(truth.shape)}, got {crop}")
    p, t = (image.detach()[_inside(crop)].to(torch.complex128) for image in (reconstruction, truth))
    for name, image in (("reconstruction", p), ("truth", t)):
        if not bool(image.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers")
    if not bool((t != 0).any()):
        raise ValueError("truth: expected numbers that are not all 0")
    return p, t


def _pearson(image: Tensor, truth: Tensor, scale: float) -> float:
    """0 where either varies by no more than rounding on ``scale``."""
    p, t = image - image.mean(), truth - truth.mean()
    norms = [float(centred.square().mean().sqrt()) for centred in (p, t)]
    return float((p * t).mean()) / (norms[0] * norms[1]) if min(norms) > 1e-9 * scale else 0.0


def _without_plane(image: Tensor) -> Tensor:
    height, width = image.shape
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    basis = torch.stack([torch.ones_like(y), y, x], -1).flatten(0, 1)
    plane = basis @ torch.linalg.lstsq(basis, image.flatten().unsqueeze(1)).solution
    return image - plane.view_as(image)
