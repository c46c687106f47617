"""Simulated scans by their settings, and those that have a name. Free of torch, which a simulation loads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from sem.settings import Section, setting

if TYPE_CHECKING:
    from torch import Tensor

    from sem.ptycho.files import ScanFile

GEOMETRY = ("energy", "distance", "detector_pixel")


@dataclass(frozen=True, kw_only=True)
class Simulation(Section):
    """What a simulated scan is made of: object, probe, positions, photons. Each random thing has a seed of its own.

    Raises:
        ValueError: one line for every impossible value.

    Example:
        >>> made = Simulation(side=16, rows=5, columns=5, step=4, lines=20).make()
        >>> len(made.scan), made.probe.shape, tuple(made.object.shape)
        (25, torch.Size([1, 16, 16]), (33, 33))
    """

    section: ClassVar[str] = "simulation"

    object: Literal["lines", "siemens", "noise"] = setting("lines", "what the beam goes through")
    size: int | None = setting(None, "pixels along the object's side; null: as many as the scan needs", ge=8)
    lines: int = setting(100, "lines of an object of lines", ge=1)
    canvas: int | None = setting(None, "pixels along the canvas that lines are drawn on; null: size + 80", ge=8)
    spokes: int = setting(24, "spokes of a Siemens star", ge=1)
    bandwidth: float = setting(0.05, "highest frequency of a noise object's phase, cycles per pixel", gt=0, le=0.5)
    phase: bool = setting(True, "whether lines and spokes turn the phase")
    seed_object: int = setting(1, "of the object", ge=0)
    side: int = setting(64, "N, pixels along a pattern's side", ge=8)
    radius: float | None = setting(None, "the probe's, in pixels; null: 0.22 N", gt=0)
    edge: float = setting(0.5, "width of the probe's edge in pixels", gt=0)
    defocus: float | None = setting(
        None, "d of exp(-i pi d |q|^2), q in cycles per pixel; null: 60 (N/64)^2; at 0 every pattern has a twin"
    )
    mask: bool = setting(False, "cut the probe off at a radius of N/4")
    modes: int = setting(1, "incoherent modes of the probe", ge=1, le=16)
    mode_share: float = setting(0.05, "share of each further mode in the probe's power", gt=0, lt=1)
    probe_factor: float = setting(
        1.0, "what the file's probe is multiplied by: other than 1, it is not the one behind the patterns", gt=0
    )
    scan: Literal["jitter", "raster", "spiral"] = setting("jitter", "how positions lie; a raster leaves its period")
    rows: int = setting(21, "rows of positions", ge=1)
    columns: int = setting(21, "columns of positions; a spiral has rows x columns positions", ge=1)
    step: float = setting(6.0, "pixels from position to position", gt=0)
    jitter: int = setting(1, "most whole pixels by which scan = jitter moves a position each way", ge=1)
    seed_scan: int = setting(0, "of the jitter", ge=0)
    photons: float = setting(1e6, "counts of a pattern in the mean", gt=0)
    background: float = setting(0.0, "further counts of every pixel in the mean", ge=0)
    noise: bool = setting(True, "Poisson noise")
    seed_noise: int = setting(2, "of the noise", ge=0)
    energy: float | None = setting(None, "of the photons, in keV, for a file that knows its pixel", gt=0)
    distance: float | None = setting(None, "from sample to detector, in metres", gt=0)
    detector_pixel: float | None = setting(None, "side of the detector's pixels, in metres", gt=0)

    def cross_checks(self) -> Iterator[str]:
        if self.mode_share * (self.modes - 1) >= 1:
            yield f"simulation.mode_share = {self.mode_share}: expected less than {1 / (self.modes - 1):.4g}"
        given = [name for name in GEOMETRY if getattr(self, name) is not None]
        if given and len(given) < len(GEOMETRY):
            yield f"simulation.{given[0]}: expected {', '.join(GEOMETRY)} together, got {', '.join(given)} alone"
        if self.canvas is not None and self.size is not None and self.canvas < self.size:
            yield f"simulation.canvas = {self.canvas}: expected at least size = {self.size}"

    def positions(self) -> Tensor:
        """Of the probe's pixel ``[0, 0]``, float32 ``[J, 2]``, the smallest 0."""
        from sem.ptycho.simulation import raster_scan, spiral_scan

        if self.scan == "spiral":  # pi spacing^2 of area for each position, as a raster has step^2
            return spiral_scan(self.rows * self.columns, self.step / math.sqrt(math.pi))
        jitter = self.jitter if self.scan == "jitter" else 0
        return raster_scan(self.rows, self.columns, self.step, jitter=jitter, seed=self.seed_scan)

    def make(self) -> ScanFile:
        """The scan, with the probe in its units and the object that it is of. Position ``[0, 0]`` is the object's pixel
        ``[0, 0]``; all settings are in the provenance.

        Raises:
            ValueError: a patch leaves the object; the message names the pattern.
        """
        import torch

        from sem.ptycho.files import Geometry, ScanFile, photon_wavelength
        from sem.ptycho.simulation import disk_probe, simulate, with_hermite_modes

        positions = self.positions()
        needed = int((positions + 0.5).floor().max()) + self.side
        truth = self._object(needed if self.size is None else self.size)
        probe = disk_probe(self.side, self.radius, edge=self.edge, defocus=self.defocus)
        if self.mask:
            along = torch.arange(self.side) - self.side // 2
            probe = probe * (along.square().unsqueeze(1) + along.square() < (self.side / 4) ** 2)
        if self.modes > 1:
            probe = with_hermite_modes(probe, self.modes, self.mode_share)
        background = torch.full((self.side, self.side), self.background) if self.background else None
        scan, probe = simulate(
            truth,
            probe,
            positions,
            photons=self.photons,
            background=background,
            seed=self.seed_noise if self.noise else None,
        )
        geometry = None
        if self.energy is not None and self.distance is not None and self.detector_pixel is not None:
            geometry = Geometry(photon_wavelength(self.energy), self.distance, self.detector_pixel, self.side)
        return ScanFile(scan, self.probe_factor * probe, truth, geometry, f"simulated: {json.dumps(self.to_mapping())}")

    def _object(self, size: int) -> Tensor:
        from sem.ptycho.simulation import lines_object, noise_object, siemens_object

        if self.object == "siemens":
            return siemens_object(size, self.spokes, phase=self.phase)
        if self.object == "noise":
            return noise_object(size, self.bandwidth, seed=self.seed_object)
        margin = {} if self.canvas is None else {"margin": (self.canvas - size) // 2}
        return lines_object(size, self.lines, seed=self.seed_object, phase=self.phase, **margin)


PRESETS = {
    "scan-441": Simulation(size=186, radius=14, defocus=60, photons=1e7),
    "scan-32": Simulation(
        size=95, lines=60, side=32, radius=7, defocus=15, scan="raster", rows=22, columns=22, step=3, photons=1e9
    ),
    "grid_lines": Simulation(
        size=392, lines=400, canvas=784, defocus=0, mask=True, scan="raster", rows=83, columns=83, step=4, photons=1e9
    ),
}
"""``grid_lines`` is a published study's scan to train on; its probe is symmetric: every pattern has a twin."""

PRESETS |= {
    "scan-32-test": dataclasses.replace(PRESETS["scan-32"], seed_object=2),
    "grid_lines-test": dataclasses.replace(PRESETS["grid_lines"], seed_object=2, rows=33, columns=33, step=10),
}


def preset(name: str) -> Simulation:
    """The settings of a scan that has a name; those that end in ``-test`` are of another object.

    Raises:
        ValueError: there is no such name.

    Example:
        >>> preset("scan-32").rows, preset("scan-32-test").seed_object
        (22, 2)
    """
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
