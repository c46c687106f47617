"""What was measured: the photons counted in each pixel, which of them count, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sem.diffraction.files.field_image import FieldImage
from sem.diffraction.files.kinds import kind_of
from sem.diffraction.images import OVERLOAD, masked_in, read_panels
from sem.diffraction.refinement.settings import RefinementSettings
from sem.diffraction.simulator import Simulator


@dataclass(frozen=True)
class Shot:
    """One image to refine against.

    Attributes:
        counts: float64 ``[slow, fast]``, photons.
        used: bool ``[slow, fast]``, the pixels that are compared.
        variance: float64 ``[slow, fast]`` of the counts, for the Gaussian likelihood; None for one variance that all
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


def read_shot(path: str | Path, simulator: Simulator, settings: RefinementSettings) -> Shot:
    """The image in a file as photons.

    Left out are pixels that are masked, not trusted, not finite, not computed, or none by the file's own word.

    Raises:
        ImportError: the library that the file's format needs is not installed.
        ValueError: a file that cannot be read, or whose shape is not that of the detector.
    """
    detector = simulator.detector
    shape = detector.slow_pixels, detector.fast_pixels
    counts, good = _image_of(path, shape, settings.panel, settings.frame)
    lowest, highest = settings.trusted or _trusted(counts[good], settings)
    used = good & counts.isfinite() & (counts >= lowest) & (counts <= highest) & simulator.computed()
    if settings.mask is not None:
        found, chosen = _panels_of(settings.mask, shape, settings.panel)
        used &= torch.from_numpy(masked_in(found, chosen, kind_of(settings.mask)))
    variance = None
    if isinstance(settings.variance, str):
        variance, known = _image_of(settings.variance, shape, settings.panel)
        used &= known & variance.isfinite() & (variance > 0)
    elif settings.variance is not None:
        variance = torch.full(shape, settings.variance, dtype=torch.float64)
    if not bool(used.any()):
        raise ValueError(f"{path}: expected pixels within the trusted range and the mask, got none")
    return Shot((counts - settings.offset) / settings.gain, used, variance)


def _trusted(counts: Tensor, settings: RefinementSettings) -> tuple[float, float]:
    finite = counts[counts.isfinite()]
    whole = bool((finite == finite.round()).all() and (finite <= OVERLOAD).all())
    return settings.offset if settings.likelihood == "poisson" else -math.inf, OVERLOAD - 1 if whole else math.inf


def _image_of(
    path: str | Path, shape: tuple[int, int], panel: int | None, frame: int | None = None
) -> tuple[Tensor, Tensor]:
    """One panel's numbers, float64, and which of them the file does not call bad, both ``[slow, fast]``."""
    found, chosen = _panels_of(path, shape, panel, frame)
    if frame is None and found.frames > 1:
        wanted = "one exposure, or --frame that says which of an image is meant"
        raise ValueError(f"{path}: expected {wanted}, got {found.frames} exposures")
    image, good = found.pixels(chosen)
    return torch.from_numpy(image), torch.from_numpy(good)


def _panels_of(
    path: str | Path, shape: tuple[int, int], panel: int | None, frame: int | None = None
) -> tuple[FieldImage, int]:
    """An image, and which of its panels is meant, of the detector's shape."""
    found = read_panels(path, frame or 0)
    if frame is not None and not 0 <= frame < found.frames:
        raise ValueError(f"{path}: expected an exposure from 0 to {found.frames - 1}, got {frame}")
    chosen = found.panel(panel, path)
    got = found.panels[chosen].shape
    if got != shape:
        wanted = f"{shape[0]} x {shape[1]} pixels, slow and fast, as the experiment's detector has"
        raise ValueError(f"{path}: expected {wanted}, got {' x '.join(map(str, got))}")
    return found, chosen
