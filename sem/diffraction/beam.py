"""The X-ray beam: its sources, colours, polarisation and intensity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sem.diffraction.conventions import Axes
from sem.diffraction.parameters import (
    ANGSTROM,
    MILLIMETRE,
    MILLIRADIAN,
    MOST_STEPS,
    count,
    finite,
    nonnegative,
    parameter,
    positive,
)
from sem.diffraction.rotations import about_axis, unit
from sem.ops.diffraction.inputs import Polarisation, Sources

DEFAULT_FLUENCE = 1.25932015286227e29
"""Photons per square metre that make the fluence times the square of the classical electron radius about 1."""


@dataclass(frozen=True)
class SourceRow:
    """A row of a source file: a position of any length in the laboratory, a weight, a wavelength in Å if it has one."""

    position: tuple[float, float, float]
    weight: float = 1.0
    wavelength: float | None = None


def spread(width: float | None, step: float | None, steps: int | None) -> tuple[float, float, int]:
    """A width, a step and a number of points from what was given of the three, by nanoBragg's rules.

    Nothing: one point. A width alone: two points at its ends. A step alone: the same with the step for a width. A width
    and a step: as many points as steps begin within the width. A number with a width: evenly from end to end, 2 at
    least. A number alone: as many in a width of 1 (a radian), from its lower end.

    Example:
        >>> spread(0.02, None, 5), spread(0.4, None, None), spread(None, None, 4)
        ((0.02, 0.005, 5), (0.4, 0.4, 2), (1.0, 0.25, 4))
    """
    if steps:
        if width is None:
            width, step, steps = (step, step, 2) if step else (1.0, 1.0 / steps, steps)
        elif not step:
            steps = max(steps, 2)
            step = width / (steps - 1)
    elif width is None:
        width, step, steps = step or 0.0, step, 2
    elif not step:
        step, steps = width, 2
    else:
        steps = math.ceil(width / step)
    return (width, step, steps) if step and width > 0 else (0.0, 0.0, 1)


class Beam(nn.Module):
    """A beam of one or several sources, each of which may send several wavelengths.

    Args:
        wavelength: central wavelength, Å; 1, or the mean of the spectrum, if None.
        polarisation: Kahn's factor, from -1 to 1; 0 for an unpolarised beam.
        polarised: False computes without any polarisation factor.
        fluence: photons per square metre.
        flux: photons per second; with ``exposure`` (s) and ``beam_size`` (mm) it gives the fluence.
        divergence: horizontal and vertical range, mrad; points outside the ellipse are left out.
        divergence_step: mrad between points, horizontal and vertical; None for even points from end to end.
        divergence_steps: points along either; None follows from range and step.
        dispersion: relative range of wavelengths (0.02 for 2 %).
        dispersion_steps: number of wavelengths.
        sources: rows of a source file, which replace divergence and dispersion.
        spectrum: pairs of a wavelength in Å and a weight, which replace dispersion; every direction has all of it, and
            the sum of the weights, whatever it is, stands for the whole fluence.
        round_divergence: leave out the corners of the divergence grid.

    Parameters (float64, without gradients until asked for): ``wavelength``, ``polarisation``, ``fluence``,
    ``divergence``, ``dispersion``, with a spectrum ``weights`` and ``wavelengths``, and with sources ``positions`` too.

    Raises:
        ValueError: a wavelength, range, flux or size that is impossible.
    """

    def __init__(
        self,
        wavelength: float | None = None,
        *,
        polarisation: float = 0.0,
        polarised: bool = True,
        fluence: float = DEFAULT_FLUENCE,
        flux: float | None = None,
        exposure: float = 1.0,
        beam_size: float = 0.1,
        divergence: tuple[float | None, float | None] = (None, None),
        divergence_step: tuple[float | None, float | None] = (None, None),
        divergence_steps: tuple[int | None, int | None] = (None, None),
        dispersion: float | None = None,
        dispersion_steps: int | None = None,
        sources: tuple[SourceRow, ...] | None = None,
        spectrum: Sequence[Sequence[float]] | Tensor | None = None,
        round_divergence: bool = True,
    ) -> None:
        super().__init__()
        self.polarised = polarised
        if not -1 <= polarisation <= 1:
            raise ValueError(f"polarisation: expected a Kahn factor from -1 to 1, got {polarisation:g}")
        self.has_spectrum = spectrum is not None
        if spectrum is not None:
            if sources is not None or dispersion or (dispersion_steps or 1) > 1:
                raise ValueError("spectrum: expected neither sources nor a dispersion to go with it, got one of them")
            self._set_spectrum(spectrum)
            if wavelength is None:
                wavelength = float((self.weights * self.wavelengths).sum() / self.weights.sum())
        self.wavelength = parameter(positive("wavelength", 1.0 if wavelength is None else wavelength, "in Å"))
        self.polarisation = parameter(polarisation)
        if flux is not None:
            nonnegative("flux", flux, "in photons per second")
            side = positive("beam size", beam_size, "in mm") * MILLIMETRE
            fluence = flux * positive("exposure", exposure, "in seconds") / side**2
        self.fluence = parameter(nonnegative("fluence", fluence, "in photons per square metre"))

        widths, fractions = [], []
        for name, width, step, steps in zip(
            ("horizontal divergence", "vertical divergence"),
            divergence,
            divergence_step,
            divergence_steps,
            strict=True,
        ):
            resolved = _spread_of(name, width, step, steps, MILLIRADIAN)
            widths.append(resolved[0] / MILLIRADIAN)
            fractions.append(_fractions(*resolved))
        resolved = _spread_of("dispersion", dispersion or 0.0, None, dispersion_steps)
        self.divergence = parameter(widths)
        self.dispersion = parameter(resolved[0])
        self.divergence_grid: Tensor
        self.dispersion_grid: Tensor
        self.register_buffer("divergence_grid", _divergence_grid(*fractions, elliptic=round_divergence))
        self.register_buffer("dispersion_grid", torch.tensor(_fractions(*resolved), dtype=torch.float64))
        self.has_rows = sources is not None
        if sources is not None:
            self._set_rows(sources)

    def _set_rows(self, rows: tuple[SourceRow, ...]) -> None:
        if not rows:
            raise ValueError("sources: expected at least one row, got none")
        for number, row in enumerate(rows, start=1):
            if not any(finite(f"source {number}: position", row.position, 3)):
                raise ValueError(f"source {number}: expected a position away from the sample, got 0 0 0")
            nonnegative(f"source {number}: weight", row.weight)
            if row.wavelength is not None:
                positive(f"source {number}: wavelength", row.wavelength, "in Å")
        if not any(row.weight for row in rows):
            raise ValueError("sources: expected a weight above 0 in some row, got only 0")
        self.positions = parameter([row.position for row in rows])
        self.weights = parameter([row.weight for row in rows])
        self.wavelengths = parameter([row.wavelength or 0.0 for row in rows])
        self.has_wavelength: Tensor
        self.register_buffer("has_wavelength", torch.tensor([row.wavelength is not None for row in rows]))

    def _set_spectrum(self, spectrum: Sequence[Sequence[float]] | Tensor) -> None:
        pairs = torch.as_tensor(spectrum, dtype=torch.float64)
        if pairs.dim() != 2 or pairs.shape[1] != 2 or not len(pairs):
            raise ValueError(f"spectrum: expected pairs of wavelength and weight, got shape {list(pairs.shape)}")
        wavelengths, weights = pairs.unbind(dim=1)
        if not bool(pairs.isfinite().all()) or bool((wavelengths <= 0).any()) or bool((weights < 0).any()):
            raise ValueError("spectrum: expected finite wavelengths > 0 and weights >= 0, got others among them")
        if not bool((weights > 0).any()):
            raise ValueError("spectrum: expected a weight above 0 in some pair, got only 0")
        self.wavelengths, self.weights = parameter(wavelengths), parameter(weights)

    def polarisation_along(self, axes: Axes, directions: Tensor) -> Polarisation | None:
        """What the operator takes for sources in ``directions`` ``[sources, 3]``: None for a beam without the factor.

        Raises:
            ValueError: the beam is polarised along its own direction.
        """
        if not self.polarised:
            return None
        axis: Tensor = axes.polarisation
        ways = unit(directions.detach())
        across = torch.linalg.cross(axis.detach().expand_as(ways), ways).norm(dim=-1)
        if float(across.min()) < 1e-12:
            if float(self.polarisation.detach()) or self.polarisation.requires_grad:
                which = f"source {int(across.argmin()) + 1} of {len(ways)}"
                raise ValueError(f"polarisation: expected a direction across the beam, got that of {which}")
            # an unpolarised beam has no direction of its own: any across all sources will do
            every = torch.eye(3, dtype=axis.dtype, device=axis.device)
            axis = every[torch.linalg.cross(every[:, None], ways[None]).norm(dim=-1).amin(dim=1).argmax()]
        return Polarisation(axis, self.polarisation)

    def forward(self, axes: Axes, weighting: str = "ignore") -> Sources:
        """The sources in the laboratory whose directions ``axes`` gives, differentiable in every parameter.

        ``weighting``: "ignore" gives every source the same intensity, as nanoBragg does; "relative" divides the weights
        of the rows by their mean. Those of a spectrum always count.
        """
        if self.has_rows:
            wavelengths = torch.where(self.has_wavelength, self.wavelengths, self.wavelength) * ANGSTROM
            weights = self.weights / self.weights.mean() if weighting == "relative" else None
            return Sources(self.positions, wavelengths, weights)
        # 0 for a polarisation along the beam, about which nothing turns
        vertical = torch.nn.functional.normalize(torch.linalg.cross(axes.beam, axes.polarisation), dim=-1)
        # the polarisation is horizontal: the vertical angle turns about it, the horizontal angle about the other
        horizontal_angle, vertical_angle = (self.divergence_grid * self.divergence * MILLIRADIAN).unbind(dim=-1)
        directions = about_axis(-axes.beam, axes.polarisation, vertical_angle)
        directions = unit(about_axis(directions, vertical, horizontal_angle))
        points = len(directions)
        if self.has_spectrum:
            wavelengths, weights = self.wavelengths * ANGSTROM, (self.weights / self.weights.mean()).repeat(points)
        else:
            wavelengths, weights = self.wavelength * ANGSTROM * (1 + self.dispersion * self.dispersion_grid), None
        return Sources(directions.repeat_interleave(len(wavelengths), dim=0), wavelengths.repeat(points), weights)


def _spread_of(
    name: str, width: float | None, step: float | None, steps: int | None, factor: float = 1.0
) -> tuple[float, float, int]:
    """What :func:`spread` makes of a width and a step times ``factor``, for messages as they were given."""
    for what, value in (("range", width), ("step", step)):
        if value is not None:
            nonnegative(f"{name} {what}", value)
    if steps is not None:
        count(f"{name} steps", steps)
    width, step = (None if value is None else value * factor for value in (width, step))
    resolved = spread(width, step, steps)
    count(f"{name} steps", resolved[2], MOST_STEPS)
    return resolved


def _fractions(width: float, step: float, steps: int) -> list[float]:
    """Where the points lie, in units of the width; 0 where there is no width."""
    return [(step * index / width - 0.5 if width else 0.0) for index in range(steps)]


def _divergence_grid(horizontal: list[float], vertical: list[float], *, elliptic: bool) -> Tensor:
    """Points ``[P, 2]`` in units of the ranges, the vertical fastest, without those outside the ellipse if there is
    one: where both are ranges."""
    count("points of the divergence", len(horizontal) * len(vertical), MOST_STEPS)
    elliptic = elliptic and any(horizontal) and any(vertical)
    corner = sum(_middle_gap(line) for line in (horizontal, vertical))
    kept = [(h, v) for h in horizontal for v in vertical if not elliptic or 4 * (h * h + v * v - corner) <= 1.1]
    if not kept:
        raise ValueError(
            "divergence: expected steps smaller than the ranges, got a grid without a point in the ellipse; "
            "-square_div keeps its corners"
        )
    return torch.tensor(kept, dtype=torch.float64).reshape(-1, 2)


def _middle_gap(line: list[float]) -> float:
    """An even number of points has none in the middle; the square of half a step is what its nearest are off."""
    return 0.0 if len(line) % 2 or len(line) < 2 else (line[1] - line[0]) ** 2 / 4
