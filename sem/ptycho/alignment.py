"""What no pattern can tell, taken out before images are compared: a factor, a phase ramp, a common translation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sem.extras import how_to_install


def aligned(reconstruction: Tensor, truth: Tensor, *, newton: int = 20) -> Tensor:
    """``c p exp(i (a y + b x))`` with the ``c, a, b`` that bring it nearest to ``truth``; complex ``[H, W]`` both.

    The start is the peak of the 8-fold padded Fourier transform of ``t conj(p)``; Newton's steps follow.

    Returns:
        complex128 ``[H, W]``.

    Example:
        >>> from sem.ptycho import lines_object
        >>> truth = lines_object(32, 20, seed=1)
        >>> ramp = torch.polar(torch.ones(32), 0.3 * torch.arange(32.0))
        >>> torch.allclose(aligned(2 * truth * ramp, truth).to(torch.complex64), truth, atol=1e-4)
        True
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


def registered(reconstruction: Tensor, truth: Tensor, crop: int = 0) -> tuple[Tensor, tuple[float, float]]:
    """The reconstruction moved onto the truth, for engines whose probe was free to carry the object along.

    Three rounds: alignment, then the peak of the correlation to a fiftieth of a pixel (scikit-image's). The images are
    taken less their means and under a Hann window, since edges draw the peak to 0, and are not whitened, since what
    interpolation dims would then count as much as the rest. The image is moved by splines of degree 5: it is not
    periodic, so that a Fourier shift would ring. A network's reconstruction stands in the probe's frame and is not to
    be moved.

    Args:
        reconstruction, truth: complex ``[H, W]``. crop: pixels inside each edge that decide; what is moved is all.

    Returns:
        complex128 ``[H, W]``, and the pixels along rows' number and columns' by which it was moved.

    Raises:
        ImportError: scikit-image is not installed.

    Example:
        >>> from sem.ptycho import lines_object
        >>> big = lines_object(72, 40, seed=1)
        >>> found, shift = registered(big[3:67, 4:68], big[4:68, 4:68], crop=8)
        >>> shift
        (-1.0, 0.0)
    """
    try:  # here, since reconstructions need no scores
        from scipy.ndimage import shift as move
        from scipy.signal.windows import hann
        from skimage.registration import phase_cross_correlation
    except ImportError:
        raise ImportError(f"registration needs scikit-image: {how_to_install('ptycho')}") from None
    p, t = reconstruction.detach().to(torch.complex128), truth.detach().to(torch.complex128)
    inside = slice(crop, -crop or None)
    wanted = t[inside, inside]
    window = torch.outer(*(torch.from_numpy(hann(size)) for size in wanted.shape))
    mean = wanted.mean()
    moved, total = p, [0.0, 0.0]
    for _ in range(3):
        here = aligned(moved[inside, inside], wanted)
        images = (((image - mean) * window).numpy() for image in (wanted, here))
        step, _, _ = phase_cross_correlation(*images, upsample_factor=50, normalization=None)
        total = [before + float(more) for before, more in zip(total, step, strict=True)]
        moved = torch.from_numpy(move(p.numpy(), total, order=5, mode="nearest"))
    return moved, (round(total[0], 2), round(total[1], 2))
