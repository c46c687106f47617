"""A flat or curved area detector: where its pixels are, from the settings a beamline writes down."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sem.diffraction import conventions
from sem.diffraction.conventions import Axes, Convention
from sem.diffraction.parameters import (
    DEGREE,
    MICROMETRE,
    MILLIMETRE,
    choice,
    count,
    finite,
    nonnegative,
    parameter,
    positive,
)
from sem.diffraction.rigid_body import RigidBody
from sem.diffraction.rotations import about_axis, about_xyz
from sem.ops.diffraction.inputs import Curvature, DetectorFrame

PHYSICS = ("nanobragg", "exact")
PIVOTS = ("beam", "sample")


class Detector(nn.Module):
    """A detector of ``pixels = (fast, slow)`` square pixels. Lengths in mm, angles in degrees.

    Args:
        pixels: number of pixels along the fast and the slow axis.
        pixel_size: side of a pixel, mm.
        distance: from the sample to the detector along the beam, mm.
        close_distance: from the sample to the nearest point of the detector's plane, mm; replaces ``distance``.
        convention: name of a convention, or one made by :func:`sem.diffraction.conventions.custom`.
        beam_center: where the beam meets the detector, in the convention's x and y, mm; its default if None. Counts
            where the detector turns about the beam.
        near_point: the point of the detector nearest to the sample along (fast, slow), mm; the middle if None. Counts
            where the detector turns about the sample.
        rotation: turns about x, y and z, in this order, degrees.
        two_theta: turn about the convention's two-theta axis, after ``rotation``, degrees.
        pivot: "beam" or "sample"; the convention's if None.
        curved: every pixel at the same distance from the sample.
        point_pixel: solid angles of points, the inverse squares of their distances.
        oversample: subpixels along each side of a pixel.
        thickness: of the sensor, µm; 0 for one that absorbs everything at its surface.
        attenuation_depth: depth at which 1/e of the photons are left, µm; None for no absorption.
        layers: of the sensor that are computed apart.
        layer_step: depth from one layer to the next, µm; ``thickness / (layers - 1)`` if None.
        size: fast and slow side of the detector from which beam centres are counted, mm; that of its pixels if None.

    Parameters (float64, without gradients until asked for): ``distance`` or ``close_distance``, ``beam_center``,
    ``near_point``, ``rotation``, ``two_theta``, and the directions in ``axes``. A panel of several moves with ``body``
    besides, see :class:`sem.diffraction.Panels`.

    Example:
        >>> detector = Detector(pixels=(128, 128), distance=100.0)
        >>> [round(x, 4) for x in detector().origin.tolist()]
        [0.1, 0.0065, -0.0065]

    Raises:
        ValueError: sizes that are not positive, an unknown convention or pivot.
    """

    def __init__(
        self,
        pixels: tuple[int, int] = (1024, 1024),
        pixel_size: float = 0.1,
        distance: float = 100.0,
        *,
        close_distance: float | None = None,
        convention: str | Convention = "MOSFLM",
        beam_center: tuple[float, float] | None = None,
        near_point: tuple[float, float] | None = None,
        rotation: tuple[float, float, float] = (0.0, 0.0, 0.0),
        two_theta: float = 0.0,
        pivot: str | None = None,
        curved: bool = False,
        point_pixel: bool = False,
        oversample: int = 1,
        thickness: float = 0.0,
        attenuation_depth: float | None = None,
        layers: int = 1,
        layer_step: float | None = None,
        size: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.convention = conventions.convention(convention) if isinstance(convention, str) else convention
        self.fast_pixels, self.slow_pixels = (count("pixels", number) for number in pixels)
        self.pixel_size = positive("pixel size", pixel_size, "in mm")
        self.pivot = None if pivot is None else choice("pivot", pivot, PIVOTS)
        self.curved = curved
        self.point_pixel = point_pixel
        self.oversample = count("oversample", oversample)
        self.layers = count("detector layers", layers)
        self.thickness = nonnegative("detector thickness", thickness, "in µm")
        if layer_step is None:
            layer_step = self.thickness / max(self.layers - 1, 1)
        self.layer_step = nonnegative("layer step", layer_step, "in µm")
        self._size = None if size is None else tuple(positive("detsize", side, "in mm") for side in size)
        self.attenuation_depth = None
        if attenuation_depth is not None:
            self.attenuation_depth = positive("attenuation depth", attenuation_depth, "in µm")

        self.axes = Axes(self.convention)
        self.distance = parameter(positive("distance", distance, "in mm"))
        self.close_distance: nn.Parameter | None = None
        if close_distance is not None:
            self.close_distance = parameter(positive("close distance", close_distance, "in mm"))
        fast_size, slow_size = size = self.size
        center = beam_center or self.convention.default_center(self.pixel_size, size)
        self.beam_center = parameter(finite("beam center", center, 2))
        self.near_point = parameter(finite("near point", near_point or (fast_size / 2, slow_size / 2), 2))
        self.rotation = parameter(finite("rotation", rotation, 3))
        self.two_theta = parameter(finite("two-theta", (two_theta,), 1)[0])
        self.body: RigidBody | None = None

    @property
    def size(self) -> tuple[float, float]:
        """Fast and slow side of the whole detector, mm."""
        if self._size is not None:
            return self._size[0], self._size[1]
        return self.fast_pixels * self.pixel_size, self.slow_pixels * self.pixel_size

    def pivot_in(self, physics: str) -> str:
        """What the detector turns about: nanoBragg listens to an explicit pivot only where directions are custom."""
        if self.pivot is None or (physics == "nanobragg" and self.convention.name != "CUSTOM"):
            return self.convention.pivot
        return self.pivot

    def forward(self, physics: str = "nanobragg") -> DetectorFrame:
        """Where the pixels are after all rotations, differentiable in every parameter."""
        axes = self.axes
        tilted, ratio = self.tilted()
        if self.close_distance is None:
            close = (ratio * self.distance * MILLIMETRE).abs()
        else:
            close = self.close_distance * MILLIMETRE
        distance = close / ratio
        fast, slow, normal = about_axis(tilted, axes.two_theta, self.two_theta * DEGREE)
        if self.pivot_in(physics) == "sample":
            near = self.near_point * MILLIMETRE
            origin = close * normal - near[0] * fast - near[1] * slow
        else:
            spot = self.convention.fast_slow(self.beam_center, self.pixel_size, self.size[1]) * MILLIMETRE
            origin = distance * axes.beam - spot[0] * fast - spot[1] * slow
        if self.body is not None:
            origin, fast, slow, normal = self.body(torch.stack([origin, fast, slow, normal]))
        depth = self.attenuation_depth
        near_distance = torch.linalg.vecdot(origin, normal)
        return DetectorFrame(
            origin,
            fast,
            slow,
            normal,
            pixel_size=self.pixel_size * MILLIMETRE,
            shape=(self.slow_pixels, self.fast_pixels),
            close_distance=near_distance,
            point_pixel=self.point_pixel,
            oversample=self.oversample,
            layers=self.layers,
            layer_step=self.layer_step * MICROMETRE,
            attenuation=1 / (depth * MICROMETRE) if depth and self.thickness else 0.0,
            curvature=Curvature(near_distance / ratio if physics == "nanobragg" else distance, axes.beam)
            if self.curved
            else None,
        )

    def arm(self, physics: str = "nanobragg") -> Tensor:
        """The distance along the beam in metres that nanoBragg goes on with after all rotations.

        The distance of the plane after two-theta, over the cosine between beam and normal before it: with two-theta
        and a detector that turns about the beam it is shorter than ``distance``. ``exact`` keeps to the distance given.
        """
        ratio = self.tilted()[1]
        if physics == "nanobragg":
            return torch.as_tensor(self(physics).close_distance) / ratio
        return self.distance * MILLIMETRE if self.close_distance is None else self.close_distance * MILLIMETRE / ratio

    def tilted(self) -> tuple[Tensor, Tensor]:
        """Fast, slow and normal ``[3, 3]`` turned about x, y, z, and the cosine between beam and normal.

        Both are taken before two-theta, which swings the detector on its arm: the distance stays that of the arm.
        """
        axes = self.axes
        tilted = about_xyz(torch.stack([axes.fast, axes.slow, axes.normal]), self.rotation * DEGREE)
        return tilted, axes.beam @ tilted[2]
