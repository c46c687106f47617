"""Fourier ring correlation: up to which spatial frequency two images say the same."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sem.extras import how_to_install


class RingCorrelation(NamedTuple):
    """``curve`` and ``pixels``, float64 and int64 ``[side // 2 + 1]``: the correlation on each ring, and of how many
    frequencies it is; ``side`` of the square compared; ``half``, ``seventh`` and ``half_bit``: the ring, between whole
    ones, at which the curve first falls below 1/2, 1/7 and the half-bit curve, the last ring where it never does."""

    curve: Tensor
    pixels: Tensor
    side: int
    half: float
    seventh: float
    half_bit: float

    def resolution(self, pixel: float, ring: float | None = None) -> float:
        """``side * pixel / ring``, in the unit of ``pixel``; ``ring`` None: the half-bit crossing."""
        return self.side * pixel / (self.half_bit if ring is None else ring)


def ring_correlation(image: Tensor, other: Tensor) -> RingCorrelation:
    """Of two real or complex ``[H, W]``, on the square in their middle.

    Means are removed, a Tukey window tapers a quarter of each side, and on the rings ``rint(|q|)``::

        Re sum F_p conj(F_t) / sqrt(sum |F_p|^2 sum |F_t|^2),    0 where one of the two has nothing

    A blur without noise dims both sums alike and is not seen: never the only score. Align images first
    (:func:`sem.ptycho.aligned`). Without a truth, reconstruct two halves of a scan and compare those.

    The half-bit curve of a ring of ``n`` frequencies is ``(0.2071 + 1.9102 / sqrt(n)) / (1.2071 + 0.9102 / sqrt(n))``
    (van Heel and Schatz, J. Struct. Biol. 151, 250, 2005). The search for a crossing begins at ring 1.

    Raises:
        ValueError: images of different shapes, smaller than 8 pixels, or with numbers that are not finite.
        ImportError: scipy is not installed.

    Example:
        >>> noise = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> found = ring_correlation(noise[0], noise[0])
        >>> found.half, found.resolution(5e-9, found.half)  # two pixels of 5 nm
        (32.0, 1e-08)
        >>> ring_correlation(noise[0], noise[1]).half < 3
        True
    """
    if image.dim() != 2 or image.shape != other.shape or min(image.shape) < 8:
        got = f"{list(image.shape)} and {list(other.shape)}"
        raise ValueError(f"image, other: expected one shape [H, W] of 8 pixels or more, got {got}")
    try:
        from scipy.signal.windows import tukey
    except ImportError:
        raise ImportError(f"scores need scikit-image and scipy: {how_to_install('ptycho')}") from None
    side = min(image.shape)
    first = [(size - side) // 2 for size in image.shape]
    taper = torch.from_numpy(tukey(side, 0.25))
    spectra = []
    for name, whole in (("image", image), ("other", other)):
        square = whole.detach()[first[0] : first[0] + side, first[1] : first[1] + side].to(torch.complex128)
        if not bool(square.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers")
        centred = square - square.mean()
        if float(centred.abs().max()) <= 1e-12 * float(square.abs().max()):  # rounding is no structure
            centred = torch.zeros_like(centred)
        spectra.append(torch.fft.fft2(centred * torch.outer(taper, taper)))
    q = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    ring = (q.square().unsqueeze(1) + q.square()).sqrt().round().long().flatten()
    rings = side // 2 + 1
    pixels = torch.bincount(ring)[:rings]

    def total(values: Tensor) -> Tensor:
        return torch.bincount(ring, values.flatten())[:rings]

    p, t = spectra
    power = total(p.abs().square()) * total(t.abs().square())
    curve = torch.where(power > 0, total((p * t.conj()).real) / power.clamp_min(1e-300).sqrt(), 0)
    thresholds = (torch.full_like(curve, 0.5), torch.full_like(curve, 1 / 7), half_bit_curve(pixels))
    return RingCorrelation(curve, pixels, side, *(_crossing(curve - threshold) for threshold in thresholds))


def half_bit_curve(pixels: Tensor) -> Tensor:
    """Of rings of so many frequencies, float64."""
    root = pixels.double().sqrt()
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


def _crossing(above: Tensor) -> float:
    """The first ring from 1 on at which ``above`` is negative, linear between it and the one before."""
    below = (above[1:] < 0).nonzero()
    if not len(below):
        return float(len(above) - 1)
    k = int(below[0]) + 1
    if k == 1:
        return 1.0
    return k - 1 + float(above[k - 1] / (above[k - 1] - above[k]))
