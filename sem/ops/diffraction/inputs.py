"""What a diffraction image is computed from: a detector, sources, a crystal's domains and its structure factors.

Lengths are metres, angles are carried by vectors. Vectors and scalars that have a gradient are torch tensors, float64
by habit (the geometry of an image needs it); plain numbers and lists are accepted and have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Number = Tensor | float
Vector = Tensor | Sequence[float]

SHAPES = ("square", "round", "gauss", "tophat")  # in the order of sem::DomainShape
MODES = ("nanobragg", "exact")  # in the order of sem::DiffractionMode


@dataclass(frozen=True)
class Curvature:
    """A detector bent so that every pixel is at ``distance`` from the sample.

    The flat position ``p`` of a pixel gives two angles: ``distance * beam`` is turned about the slow axis by
    ``p_y / distance`` and then about the fast axis by ``p_z / distance``.

    Args:
        distance: metres.
        beam: ``[3]``, unit, from the source to the sample.
    """

    distance: Number
    beam: Vector


@dataclass(frozen=True)
class DetectorFrame:
    """Where the pixels are. Subpixel centres are at ``origin + F fast + S slow + O normal``, with ``F`` and ``S``
    counted from the corner of pixel (0, 0) and ``O`` the depth of a layer.

    Args:
        origin: ``[3]`` metres, the outer corner of pixel (0, 0) from the sample (nanoBragg's ``pix0``).
        fast, slow, normal: ``[3]`` unit axes; the image's columns run along ``fast``, its rows along ``slow``.
        pixel_size: metres.
        shape: ``(slow pixels, fast pixels)``, the shape of the image.
        close_distance: metres from the sample to the detector's plane, along its normal; the solid angle of a pixel at
            distance R is ``pixel_size**2 * close_distance / R**3``.
        point_pixel: solid angles ``1 / R**2`` in its place.
        oversample: subpixels along each side of a pixel.
        layers, layer_step: sensor layers and the depth of each, metres.
        attenuation: inverse attenuation length of the sensor, 1/metres; 0 for a sensor that captures every photon.
        curvature: None for a flat detector.
    """

    origin: Vector
    fast: Vector
    slow: Vector
    normal: Vector
    pixel_size: float
    shape: tuple[int, int]
    close_distance: Number
    point_pixel: bool = False
    oversample: int = 1
    layers: int = 1
    layer_step: float = 0.0
    attenuation: float = 0.0
    curvature: Curvature | None = None


@dataclass(frozen=True)
class Sources:
    """Points that the X-rays come from, S of them.

    Args:
        direction: ``[S, 3]`` from the sample toward each source, of any length.
        wavelength: ``[S]`` metres.
        weight: ``[S]`` factor on the intensity of each, or None for 1 (nanoBragg reads weights and does not use them).
    """

    direction: Tensor
    wavelength: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Domains:
    """The crystal: one cell in P spindle positions times M mosaic orientations, in blocks of ``cells``.

    Args:
        orientation: ``[P, M, 3, 3]`` metres, the rows a, b, c of the real-space cell in the laboratory frame.
        cells: ``[3]`` cells N_a, N_b, N_c along each edge of a block; an edge of a square block with N <= 1 gives a
            factor 1.
        shape: ``"square"``, ``"round"``, ``"gauss"`` or ``"tophat"``, the lattice's interference function.
        fudge: factor on the squared distance to the Bragg spot, for every shape but the square.
        reciprocal_metric: ``[3, 3]`` 1/metres^2, the scalar products of a*, b*, c*, which gauss and tophat need; None
            takes the inverse of the metric of ``orientation[0, 0]``.
        phi_carryover: position 0 repeats the last position's orientations, but for the first source at the first place
            of the first pixel that is computed: what nanoBragg does when its first spindle angle is 0.
    """

    orientation: Tensor
    cells: Vector
    shape: str = "square"
    fudge: Number = 1.0
    reciprocal_metric: Tensor | None = None
    phi_carryover: bool = False


@dataclass(frozen=True)
class StructureFactors:
    """F of the unit cell at every reflection.

    Args:
        default: F where there is no table, or outside it.
        table: ``[H, K, L]`` F on a dense grid of indices, or None.
        first_index: h, k, l of ``table[0, 0, 0]``.
        tricubic: interpolate between indices with four points along each axis, where h, k and l are at least two from
            the table's ends. In mode ``"nanobragg"`` the first reflection that is nearer to them, in the order pixels
            and steps are computed in, switches the interpolation off for itself and all that follow; in mode
            ``"exact"`` only for itself. Not interpolated, F is that of the nearest index.
    """

    default: Number
    table: Tensor | None = None
    first_index: tuple[int, int, int] = (0, 0, 0)
    tricubic: bool = False


@dataclass(frozen=True)
class Polarisation:
    """Kahn's polarisation factor, ``(1 + cos(2 theta)**2 - K cos(2 psi) sin(2 theta)**2) / 2``.

    Args:
        kahn: K, between -1 and 1; 0 is an unpolarised beam.
        axis: ``[3]`` direction of the polarisation's E vector, not along any source.
    """

    axis: Vector
    kahn: Number = 0.0


@dataclass(frozen=True)
class Region:
    """The part of the image to compute; what is outside is 0 and has no gradient.

    Args:
        roi: ``(fast_first, fast_last, slow_first, slow_last)``, inclusive, or None for the whole detector.
        mask: bool ``[slow, fast]``, True where a pixel is computed, or None.
    """

    roi: tuple[int, int, int, int] | None = None
    mask: Tensor | None = None
