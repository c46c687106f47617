"""What was measured: the photons counted in each pixel, which of them count, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sem.diffraction.files.field_image import FieldImage
from sem.diffraction.files.kinds import kind_of
from sem.diffraction.images import OVERLOAD, masked_in, read_panels
from sem.diffraction.refinement.panels import Exposure, files_named, panels_of, stacked
from sem.diffraction.refinement.settings import RefinementSettings
from sem.diffraction.simulator import Simulator


@dataclass(frozen=True)
class Shot:
    """One image to refine against: ``[slow, fast]``, or ``[panels, slow, fast]`` of several, of which those that are
    smaller than others end with pixels that are not used.

    Attributes:
        counts: float64, photons.
        used: bool of that shape, the pixels that are compared.
        variance: float64 of that shape, of the counts, for the Gaussian likelihood; None for one variance that all
            pixels share, which the residuals give.

    Raises:
        ValueError: shapes that differ, no pixel used, counts or variances in used pixels that are none.
    """

    counts: Tensor
    used: Tensor
    variance: Tensor | None = None

    def __post_init__(self) -> None:
        for name, image in (("used", self.used), ("variance", self.variance)):
            if image is not None and image.shape != self.counts.shape:
                raise ValueError(f"{name}: expected shape {list(self.counts.shape)}, got {list(image.shape)}")
        if not bool(self.used.any()):
            raise ValueError("pixels: expected some that are used, got none")
        if not bool(self.counts[self.used].isfinite().all()):
            raise ValueError("counts: expected finite numbers in the pixels used")
        if self.variance is not None:
            chosen = self.variance[self.used]
            if not bool((chosen > 0).all()) or not bool(chosen.isfinite().all()):
                raise ValueError("variance: expected finite numbers > 0 in the pixels used")


def read_shot(path: str | Path, simulator: Exposure, settings: RefinementSettings) -> Shot:
    """The image in a file as photons; with ``{panel}`` in its name, those in a file for each panel, numbered from 0.

    Left out are pixels that are masked, not trusted, not finite, not computed, or none by the file's own word.

    Raises:
        ImportError: the library that the file's format needs is not installed.
        ValueError: a file that cannot be read, that has not the experiment's panels, or whose shape is not that of the
            detector.
    """
    panels = panels_of(simulator)
    counts, good = _image_of(path, panels, settings.panel, settings.frame)
    lowest, highest = settings.trusted or _trusted(counts[good], settings)
    used = good & counts.isfinite() & (counts >= lowest) & (counts <= highest)
    used &= stacked([panel.computed() for panel in panels])
    if settings.mask is not None:
        masks = _panels_in(settings.mask, panels, settings.panel)
        chosen = [masked_in(found, number, kind_of(file)) for file, found, number in masks]
        used &= stacked([torch.from_numpy(mask) for mask in chosen])
    variance = None
    if isinstance(settings.variance, str):
        variance, known = _image_of(settings.variance, panels, settings.panel)
        used &= known & variance.isfinite() & (variance > 0)
    elif settings.variance is not None:
        variance = torch.full(counts.shape, settings.variance, dtype=torch.float64)
    if not bool(used.any()):
        raise ValueError(f"{path}: expected pixels within the trusted range and the mask, got none")
    return Shot((counts - settings.offset) / settings.gain, used, variance)


def _trusted(counts: Tensor, settings: RefinementSettings) -> tuple[float, float]:
    finite = counts[counts.isfinite()]
    whole = bool((finite == finite.round()).all() and (finite <= OVERLOAD).all())
    return settings.offset if settings.likelihood == "poisson" else -math.inf, OVERLOAD - 1 if whole else math.inf


def _image_of(
    path: str | Path, panels: Sequence[Simulator], panel: int | None, frame: int | None = None
) -> tuple[Tensor, Tensor]:
    """The numbers in the file of an image, float64, and which of them it does not call bad, stacked."""
    parts = _panels_in(path, panels, panel, frame)
    for file, found, _ in parts:
        if frame is None and found.frames > 1:
            wanted = "one exposure, or --frame that says which of an image is meant"
            raise ValueError(f"{file}: expected {wanted}, got {found.frames} exposures")
    pixels = [found.pixels(number) for _, found, number in parts]
    return stacked([torch.from_numpy(image) for image, _ in pixels]), stacked([torch.from_numpy(g) for _, g in pixels])


def _panels_in(
    path: str | Path, panels: Sequence[Simulator], panel: int | None, frame: int | None = None
) -> list[tuple[Path, FieldImage, int]]:
    """For each panel of the experiment its file, what is in there, and which part of that is meant, of its shape."""
    if panel is not None and len(panels) > 1:
        raise ValueError(f"panel: expected none, since the experiment has {len(panels)} panels, got {panel}")
    parts = []
    for file in files_named(path):
        found = read_panels(file, frame or 0)
        if frame is not None and not 0 <= frame < found.frames:
            raise ValueError(f"{file}: expected an exposure from 0 to {found.frames - 1}, got {frame}")
        numbers = range(len(found.panels)) if len(panels) > 1 else (found.panel(panel, file),)
        parts += [(file, found, number) for number in numbers]
    if len(parts) != len(panels):
        wanted = f"{len(panels)} panels" if len(panels) > 1 else "one panel"
        raise ValueError(f"{path}: expected {wanted} as the experiment has, got {len(parts)}")
    for number, ((file, found, chosen), simulator) in enumerate(zip(parts, panels, strict=True)):
        detector, got = simulator.detector, found.panels[chosen].shape
        if got != (detector.slow_pixels, detector.fast_pixels):
            whose = f"panel {number} of the experiment has" if len(panels) > 1 else "the experiment's detector has"
            wanted = f"{detector.slow_pixels} x {detector.fast_pixels} pixels, slow and fast, as {whose}"
            raise ValueError(f"{file}: expected {wanted}, got {' x '.join(map(str, got))}")
    return parts
