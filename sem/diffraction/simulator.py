"""Crystal, beam and detector to an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sem.diffraction.background import Background
from sem.diffraction.beam import Beam
from sem.diffraction.crystal import Crystal
from sem.diffraction.detector import PHYSICS, Detector
from sem.diffraction.parameters import ANGSTROM, MICROMETRE, MILLIMETRE, choice, nonnegative, parameter
from sem.diffraction.point_spread import PointSpread
from sem.diffraction.reflections import Reflections
from sem.ops.diffraction.inputs import Domains, Polarisation, Region, Sources, StructureFactors
from sem.ops.diffraction.operator import TracedValue, diffraction, diffraction_serial, diffraction_trace
from sem.ops.diffraction.problem import CLASSICAL_RADIUS_SQUARED
from sem.ops.diffraction.reference import diffraction as diffraction_twin

CARRYOVER = ("spec", "c-parity")
WEIGHTING = ("ignore", "relative")
WATER_FACTOR = 2.57
AVOGADRO = 6.02214179e23
WATER_MASS = 18.0
FEW_CELLS = 2
"""Up to so many cells along an axis spots are so broad that amplitudes are interpolated unless told otherwise."""


@dataclass(frozen=True)
class Scene:
    """What panels of one exposure share, as the operator takes it.

    Attributes:
        domains: the crystal in all of its orientations.
        colours: the sources that have one table of structure factors, their share of all sources, and that table.
        polarisation: of the beam.
        options: keywords of :func:`sem.ops.diffraction`.
    """

    domains: Domains
    colours: tuple[tuple[float, Sources, StructureFactors], ...]
    polarisation: Polarisation | None
    options: dict[str, Any]


class Simulator(nn.Module):
    """A far-field diffraction image, photons per pixel, differentiable in the parameters of its parts.

    Args:
        crystal, beam, detector: the experiment.
        reflections: structure factors.
        physics: "nanobragg" repeats that program's quirks; "exact" does without them.
        phi_carryover: "spec" turns the crystal at every step; "c-parity" leaves it where it is at a step whose angle is
            0, as nanoBragg does: at step 0, where the last step of the pixel before left it.
        source_weighting: "ignore" or "relative", see :meth:`sem.diffraction.Beam.forward`.
        interpolate: tricubic structure factors; None interpolates a table where a domain has at most 2 cells along an
            axis.
        water: side of a cube of water in the beam, µm, which gives a flat background.
        background: more of it, an image or a profile.
        point_spread: of the detector, which the image goes through.
        d_min: spacing in Å below which reflections are left out; 0 for none.
        region: ``(fast first, fast last, slow first, slow last)``, inclusive; the rest of the image is 0.
        mask: bool ``[slow, fast]``, True where a pixel is computed.

    Parameters are float64 and ask for no gradient until :meth:`refine` names them.

    Example:
        >>> crystal = Crystal((100, 100, 100, 90, 90, 90), cells=(5, 5, 5))
        >>> simulator = Simulator(crystal, Beam(6.2), Detector((32, 32)), Reflections(100.0))
        >>> simulator().shape
        torch.Size([32, 32])
        >>> lengths, misset = simulator.refine("crystal.lengths", "crystal.misset")
        >>> simulator().sum().backward()
        >>> lengths.grad.shape
        torch.Size([3])

    Raises:
        ValueError: an unknown mode, a region outside the detector, a mask of another shape.
    """

    def __init__(
        self,
        crystal: Crystal,
        beam: Beam,
        detector: Detector,
        reflections: Reflections,
        *,
        physics: str = "nanobragg",
        phi_carryover: str = "spec",
        source_weighting: str = "ignore",
        interpolate: bool | None = None,
        water: float = 0.0,
        background: Background | None = None,
        point_spread: PointSpread | None = None,
        d_min: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.crystal, self.beam, self.detector, self.reflections = crystal, beam, detector, reflections
        self.physics = choice("physics", physics, PHYSICS)
        self.phi_carryover = choice("phi_carryover", phi_carryover, CARRYOVER)
        self.source_weighting = choice("source_weighting", source_weighting, WEIGHTING)
        if interpolate is None:
            interpolate = reflections.table is not None and bool((crystal.cells <= FEW_CELLS).any())
        if interpolate and reflections.table is None:
            raise ValueError("interpolate: expected a table of structure factors to interpolate in, got none")
        self.interpolate = interpolate
        self.water = parameter(nonnegative("water", water, "in µm"))
        if background is not None:
            background.require_fit(detector)  # before an image is computed, not behind it
        self.background, self.point_spread = background, point_spread
        self.d_min = nonnegative("d_min", d_min, "in Å")
        self.region = None if region is None else self._region_inside(region)
        shape = (detector.slow_pixels, detector.fast_pixels)
        if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != shape):
            raise ValueError(f"mask: expected bool of shape {list(shape)}, got {mask.dtype} of {list(mask.shape)}")
        self.mask: Tensor | None
        self.register_buffer("mask", mask)

    def refine(self, *names: str) -> list[nn.Parameter]:
        """Ask for gradients to the parameters ``names``, such as ``crystal.misset``, and to no others; returns them.

        Raises:
            ValueError: a name that no parameter has.
        """
        return ask_for_gradients(self, names)

    def forward(self, *, reference: bool = False, scene: Scene | None = None) -> Tensor:
        """The image ``[slow, fast]``: float32 of the native operator, or float64 of its plain-torch twin
        (``reference``), which has gradients too. ``scene``: :meth:`scene` of this or of another panel."""
        return self.spread(self.photons(reference=reference, scene=scene))

    def photons(self, *, reference: bool = False, scene: Scene | None = None) -> Tensor:
        """The image before the detector's point spread: the mean number of photons that arrive."""
        return self._with_background(self._diffracted(diffraction_twin if reference else diffraction, scene))

    def spread(self, photons: Tensor) -> Tensor:
        """``photons`` ``[slow, fast]`` as the point spread has them counted, 0 where pixels are not computed.

        What pixels that are not computed would give to their neighbours is not there.
        """
        if self.point_spread is None:
            return photons
        spread = self.point_spread(photons, self.detector.pixel_size)
        return torch.where(self.computed().to(spread.device), spread, 0.0)

    def computed(self) -> Tensor:
        """Which pixels are computed, bool ``[slow, fast]``: those of the region that the mask does not leave out."""
        return self.inside() if self.mask is None else self.inside() & self.mask

    def inside(self) -> Tensor:
        """Which pixels are in the region, bool ``[slow, fast]``, whether the mask leaves them out or not."""
        shape = self.detector.slow_pixels, self.detector.fast_pixels
        if self.region is None:
            return torch.ones(shape, dtype=torch.bool)
        fast_first, fast_last, slow_first, slow_last = self.region
        inside = torch.zeros(shape, dtype=torch.bool)
        inside[slow_first : slow_last + 1, fast_first : fast_last + 1] = True
        return inside

    def serial(self, *, spread: bool = True) -> Tensor:
        """The image in float64, without gradients, of the serial reference whose values :meth:`trace` gives; without
        ``spread`` the photons that arrive."""
        with torch.no_grad():
            photons = self._with_background(self._diffracted(diffraction_serial))
            return self.spread(photons) if spread else photons

    def trace(
        self, pixel: tuple[int, int], *, backend: str = "native", dtype: torch.dtype | None = None
    ) -> list[TracedValue]:
        """Every intermediate value of one pixel ``(slow, fast)``; see :func:`sem.ops.diffraction_trace`.

        It ends before a ``background`` is added and before the point spread.

        Raises:
            ValueError: the sources have several tables of structure factors.
        """
        (_, arguments, options), *others = self._problems(self.scene())
        if others:
            raise ValueError(f"trace: expected one table of structure factors for all sources, got {1 + len(others)}")
        return diffraction_trace(pixel, *arguments, **options, backend=backend, dtype=dtype)

    def _with_background(self, image: Tensor) -> Tensor:
        if self.background is None:
            return image
        added = self.background(self.detector, self.beam.wavelength, self.physics).to(image)
        return torch.where(self.computed().to(image.device), image + added, image)

    def _diffracted(self, compute: Callable[..., Tensor], scene: Scene | None = None) -> Tensor:
        """The image of all sources, those that have one table of structure factors at a time."""
        problems = self._problems(scene or self.scene())
        images = [(share, compute(*arguments, **options)) for share, arguments, options in problems]
        if len(images) == 1:
            return images[0][1]
        return torch.stack([share * image for share, image in images]).sum(dim=0)

    def _problems(self, scene: Scene) -> list[tuple[float, tuple[Any, ...], dict[str, Any]]]:
        """What the operator is called with, once for each table of structure factors, and the part of the image that
        the call stands for."""
        frame, region = self.detector(self.physics), Region(self.region, self.mask)
        problems = []
        for number, (share, sources, factors) in enumerate(scene.colours):
            arguments = (frame, sources, scene.domains, factors, scene.polarisation, region)
            # where it is divided by the number of sources a background is that of one of the calls
            once = {"background": 0.0} if number and self.physics == "nanobragg" else {}
            problems.append((share, arguments, {**scene.options, **once}))
        return problems

    def scene(self) -> Scene:
        """All that the operator is called with but for the detector: what panels of one exposure share."""
        axes = self.detector.axes
        real, stars = self.crystal.vectors(self.physics)
        spread_out = self.crystal.shape in ("gauss", "tophat")  # spots whose size is measured in reciprocal space
        stars = stars / ANGSTROM
        scale = CLASSICAL_RADIUS_SQUARED * self.beam.fluence
        per_gram = AVOGADRO / WATER_MASS
        background = WATER_FACTOR**2 * scale * (self.water * MICROMETRE) ** 3 * 1e6 * per_gram
        domains = Domains(
            self._orientations(real),
            cells=self.crystal.cells,
            shape=self.crystal.shape,
            fudge=self.crystal.fudge,
            reciprocal_metric=stars @ stars.T if spread_out else None,
            phi_carryover=self.carries_over(),
        )
        sources = self.beam(axes, self.source_weighting)
        groups = self.reflections.colours(sources.wavelength / ANGSTROM)
        colours = []
        for chosen, wavelength in groups:
            own = sources if len(groups) == 1 else _some(sources, chosen)
            share = len(chosen) / len(sources.wavelength)
            colours.append((share, own, self.reflections(self.interpolate, wavelength)))
        options = {"scale": scale, "background": background, "d_min": self.d_min * ANGSTROM, "mode": self.physics}
        return Scene(domains, tuple(colours), self.beam.polarisation_along(axes, sources.direction), options)

    def orientations(self) -> Tensor:
        """a, b, c in metres for each spindle angle and domain, ``[phi_steps, domains, 3, 3]``, as they are computed."""
        return self._orientations(self.crystal.vectors(self.physics)[0])

    def _orientations(self, real: Tensor) -> Tensor:
        turned = self.crystal.turned(real * ANGSTROM, self.detector.axes.spindle)
        return turned[self.crystal.carried_steps()] if self.phi_carryover == "c-parity" else turned

    def carries_over(self) -> bool:
        """Whether the first spindle angle is one that nanoBragg does not turn the crystal to."""
        return self.phi_carryover == "c-parity" and float(self.crystal.phi.detach()) == 0.0

    def _region_inside(self, region: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        fast_first, fast_last, slow_first, slow_last = region
        fast, slow = self.detector.fast_pixels, self.detector.slow_pixels
        if not (0 <= fast_first <= fast_last < fast and 0 <= slow_first <= slow_last < slow):
            raise ValueError(
                f"region: expected fast and slow limits, first to last, inside 0 to {fast - 1} and 0 to {slow - 1}, "
                f"got {fast_first} {fast_last} {slow_first} {slow_last}"
            )
        return region


def _some(sources: Sources, chosen: Tensor) -> Sources:
    weight = None if sources.weight is None else sources.weight[chosen]
    return Sources(sources.direction[chosen], sources.wavelength[chosen], weight)


def ask_for_gradients(module: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    """What :meth:`Simulator.refine` does with any module."""
    known = dict(module.named_parameters())
    for name in names:
        choice("parameter", name, tuple(known))
    for name, value in known.items():
        value.requires_grad_(name in names)
    return [known[name] for name in names]


def automatic_oversampling(crystal: Crystal, beam: Beam, detector: Detector, physics: str = "nanobragg") -> int:
    """Subpixels along a side so that three lie within the finest detail of a spot, the crystal's inverse size."""
    real, _ = crystal.vectors()
    longest = float((real.norm(dim=-1) * crystal.cells).max().detach()) * ANGSTROM
    distance = float(detector.arm(physics).detach())
    if physics == "exact":  # that program takes a detector behind the sample for one at a negative distance
        distance = abs(distance)
    finest = float(beam.wavelength) * ANGSTROM * distance / (detector.pixel_size * MILLIMETRE)
    return max(math.ceil(3 * longest / finest), 1)
