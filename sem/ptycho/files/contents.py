"""What a file of a scan holds in memory, and the far field's geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sem.ptycho.scan import Scan

PHOTON = 12.398419843320026
"""``h c`` in keV times Angstrom."""
ELECTRON_REST = 510.99895
"""``m c^2`` of the electron in keV."""
GEOMETRY = ("wavelength", "distance", "detector_pixel")
"""The numbers of a geometry that files store; the side is the patterns'."""


def photon_wavelength(energy: float) -> float:
    """Angstrom, of photons of ``energy`` keV.

    Example:
        >>> round(photon_wavelength(8.0), 6)
        1.549802
    """
    return PHOTON / energy


def electron_wavelength(energy: float) -> float:
    """Angstrom, of electrons accelerated to ``energy`` keV, relativistic.

    Example:
        >>> round(electron_wavelength(300.0), 6)
        0.019687
    """
    return PHOTON / math.sqrt(energy * (energy + 2 * ELECTRON_REST))


@dataclass(frozen=True)
class Geometry:
    """Where a far field was recorded.

    Args:
        wavelength: in Angstrom.
        distance: from the sample to the detector, in metres.
        detector_pixel: side of the detector's square pixels, in metres.
        side: ``N``, pixels along a pattern's side.

    Raises:
        ValueError: one is not a finite number above 0; the message names it.

    Example:
        >>> geometry = Geometry(wavelength=photon_wavelength(8.0), distance=2.0, detector_pixel=75e-6, side=16)
        >>> f"{geometry.object_pixel:.4g} m"
        '2.583e-07 m'
    """

    wavelength: float
    distance: float
    detector_pixel: float
    side: int

    def __post_init__(self) -> None:
        for name in ("wavelength", "distance", "detector_pixel", "side"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a finite number > 0, got {value}")

    @property
    def object_pixel(self) -> float:
        """``dx = wavelength distance / (N detector_pixel)``, in metres."""
        return self.wavelength * 1e-10 * self.distance / (self.side * self.detector_pixel)


@dataclass(frozen=True, eq=False)
class ScanFile:
    """A scan and what its file says beside it.

    Args:
        scan: patterns with the zero frequency at ``[0, 0]``, positions in pixels of the object.
        probe: complex ``[M, N, N]``, its middle at pixel ``N // 2``, as the file has it: never rescaled. None: there is
            none.
        object: complex ``[H, W]``, as the file has it. None: no object.
        geometry: None where the file's format has none.
        provenance: free text: where the data come from, and what was done to them.

    Raises:
        ValueError: a probe, object or geometry that does not belong to the scan; the message names it.
    """

    scan: Scan
    probe: Tensor | None = None
    object: Tensor | None = None
    geometry: Geometry | None = None
    provenance: str = ""

    def __post_init__(self) -> None:
        side = self.scan.side
        if self.probe is not None:
            fits = self.probe.is_complex() and self.probe.dim() == 3 and self.probe.shape[1:] == (side, side)
            if not fits or not len(self.probe):
                got = f"{self.probe.dtype} {list(self.probe.shape)}"
                raise ValueError(f"probe: expected complex [M, {side}, {side}], got {got}")
        if self.object is not None and not (self.object.is_complex() and self.object.dim() == 2 and len(self.object)):
            raise ValueError(f"object: expected complex [H, W], got {self.object.dtype} {list(self.object.shape)}")
        if self.geometry is not None and self.geometry.side != side:
            raise ValueError(f"geometry: expected side {side}, as the patterns have, got {self.geometry.side}")
        if "\0" in self.provenance:
            raise ValueError("provenance: expected text without NUL characters")
