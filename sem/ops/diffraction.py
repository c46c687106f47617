"""diffraction: the far-field X-ray image of a small crystal, pixel by pixel, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops.diffraction_inputs import DetectorFrame, Domains, Number, Polarisation, Region, Sources, StructureFactors
from sem.ops.diffraction_problem import (
    CLASSICAL_RADIUS_SQUARED,
    DEFAULT_FLUENCE,
    Geometry,
    Settings,
    check_values,
    resolve,
)
from sem.ops.registration import first_order, register_row_vmap
from sem.precision import note_autocast


def diffraction(
    detector: DetectorFrame,
    sources: Sources,
    domains: Domains,
    factors: StructureFactors,
    polarisation: Polarisation | None = None,
    region: Region | None = None,
    *,
    scale: Number = CLASSICAL_RADIUS_SQUARED * DEFAULT_FLUENCE,
    background: Number = 0.0,
    d_min: float = 0.0,
    mode: str = "nanobragg",
) -> Tensor:
    """The diffraction image of a crystal, in the manner of the C program nanoBragg.

    For every pixel, with ``d`` the unit vector to a subpixel, and over layers, subpixels, sources, spindle positions
    and mosaic domains, in that order::

        q = (d - incident) / wavelength         h, k, l = a.q, b.q, c.q       rest = h - nearest whole index
        I = background + sum weight * F_cell(h, k, l)**2 * F_latt(rest)**2
        out = scale * I / steps * capture * polarisation * solid_angle

    ``steps`` counts subpixels, sources, positions and domains. ``F_latt`` is, by ``domains.shape``::

        square   product over axes of sin(pi N rest) / sin(pi rest)
        round    0.7236 Na Nb Nc * 3 (sin x / x - cos x) / x**2      x**2 = pi**2 fudge sum (N rest)**2
        gauss    Na Nb Nc exp(-x / 0.63)                             x = fudge |sum rest a*|**2 (Na Nb Nc)**2
        tophat   Na Nb Nc where x < 0.3969, else 0                   in reciprocal Angstroms

    Args:
        detector, sources, domains, factors, polarisation, region: see :mod:`sem.ops.diffraction_inputs`. Without
            ``polarisation`` its factor is 1; without ``region`` every pixel is computed.
        scale: squared classical electron radius times photons per square metre; the default is 1 to seven digits.
        background: in photons per steradian (what ``I`` starts at).
        d_min: reflections of smaller spacing are left out, metres.
        mode: ``"nanobragg"`` repeats the C program's habits: ``solid_angle`` and ``polarisation`` are those of the
            first subpixel, source and layer, ``capture`` that of the last, and the background passes through them,
            through ``scale`` and the division by ``steps``. In ``"exact"`` every term has its own factors, and the
            background is averaged over subpixels and sources with them, without ``scale``.

    Returns:
        float32 ``[slow, fast]`` photons; 0 outside ``region``. Coordinates, Miller indices and their distance to the
        nearest whole ones are computed in float64 and rounded once; the rest is float32. A pixel's bits depend on that
        pixel alone, whatever the region and the number of threads.

    Gradients, exact and of first order, in float64 whatever the arguments hold: the detector's origin, axes, close
    distance and curvature; directions, wavelengths and weights of the sources; orientations, reciprocal metric, cells
    (an edge with N <= 1 has none) and fudge; structure factors, default and table; Kahn's factor and the polarisation
    axis; scale and background. Sums over pixels are taken in an order that depends on the image's size alone. There is
    no gradient where there is no derivative: the nearest index and the edge of tophat's spots count as constant, and so
    do ``d_min``, mask and region, pixel size and the layers. Backward computes the image again and keeps nothing of its
    size.

    Raises:
        TypeError, ValueError: an argument that does not fit, by name.
        NotImplementedError: a second derivative was asked for.

    In plain torch, in any precision: :func:`sem.ops.reference_diffraction.diffraction`.

    Example:
        >>> from sem.ops import DetectorFrame, Domains, Sources, StructureFactors
        >>> detector = DetectorFrame(
        ...     origin=[0.1, 0.0032, -0.0032],
        ...     fast=[0.0, 0.0, 1.0],
        ...     slow=[0.0, -1.0, 0.0],
        ...     normal=[1.0, 0.0, 0.0],
        ...     pixel_size=1e-4,
        ...     shape=(64, 64),
        ...     close_distance=0.1,
        ... )
        >>> sources = Sources(direction=torch.tensor([[-1.0, 0.0, 0.0]]), wavelength=torch.tensor([1e-10]))
        >>> cell = torch.diag(torch.tensor([1e-8, 1e-8, 1e-8], dtype=torch.float64))
        >>> domains = Domains(cell.reshape(1, 1, 3, 3).requires_grad_(), cells=[5, 5, 5])
        >>> image = diffraction(detector, sources, domains, StructureFactors(default=100.0))
        >>> image.sum().backward()
        >>> image.shape, cell.grad is None
        (torch.Size([64, 64]), True)
    """
    geometry, settings = resolve(
        detector, sources, domains, factors, polarisation, region, scale, background, d_min, mode
    )
    note_autocast("diffraction", geometry.frame.device.type)
    *tensors, table, kahn, axis, weight, background_, mask = _ordered(geometry)
    return _Diffraction.apply(*tensors, table.float(), kahn, axis, weight, background_, mask, *settings.numbers())
