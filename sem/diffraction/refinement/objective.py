"""The function that a fit minimises: its value, exact gradient and Gauss-Newton curvature in dimensionless steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sem.diffraction.refinement.coordinates import Coordinates
from sem.diffraction.refinement.likelihood import Profile, gaussian_profile, poisson_profile
from sem.diffraction.refinement.shot import Shot

DIFFERENCE = 0.0025
"""Half the distance, in natural units, of the two images whose difference is a column of the Jacobian: curvatures are
then right to 1e-4, rounding and truncation alike."""
_FLOAT32 = 2.0**-24


@dataclass(frozen=True)
class Sharpness:
    """How much of the detail a stage of a fit looks at.

    Attributes:
        factor: how many times broader than they are the spots are modelled; 1 for the last stage.
        blur: standard deviation in pixels of the Gaussian that data and model go through, 0 for none.
    """

    factor: float = 1.0
    blur: float = 0.0


@dataclass
class _Point:
    """What is known of one place; what was not asked for is None."""

    profile: Profile
    value: float
    gradient: Tensor | None = None
    curvature: Tensor | None = None


class Objective:
    """Minus the log-likelihood of ``shot``, scale and background profiled out, plus the restraints.

    Its argument is ``x`` ``[count]``, the distance from ``origin`` in natural units: of a coordinate's unit, the
    image's change is as large as the image. Where images are blurred their squared differences are compared, all
    pixels alike.

    Args:
        compute: the model's image as it follows from its parameters, of the shape of the shot.
        coordinates: what of the model moves.
        shot: what was measured.
        terms: the background's columns, ``[pixels, terms]``.
        likelihood: "poisson" or "gaussian".
        sharpness: the stage.
        moving: bool ``[count]``, which coordinates move in this stage.

    Raises:
        ValueError: a coordinate that has no effect on the image.
    """

    def __init__(
        self,
        compute: Callable[[], Tensor],
        coordinates: Coordinates,
        shot: Shot,
        terms: Tensor,
        likelihood: str,
        sharpness: Sharpness,
        moving: Tensor,
    ) -> None:
        self._compute, self._coordinates = compute, coordinates
        self._sharpness, self._moving = sharpness, moving
        self._poisson = likelihood == "poisson" and not sharpness.blur
        self.variances_known = likelihood == "poisson" or shot.variance is not None
        self._used = shot.used
        self.used = int(shot.used.sum())
        self._restraint, self._anchor = coordinates.restraint[moving], coordinates.values(coordinates.start)[moving]
        self.origin = coordinates.start
        self.units = torch.ones(int(moving.sum()), dtype=torch.float64)
        self._kernel = _gaussian(sharpness.blur) if sharpness.blur else None
        self.counts = self._seen(shot.counts)
        self._weight = torch.ones_like(self.counts)
        if shot.variance is not None and not sharpness.blur:
            self._weight = 1 / shot.variance[shot.used]
        columns = [self._seen(column.reshape(shot.used.shape)) for column in terms.unbind(1)]
        self._terms = torch.stack(columns, dim=1) if columns else torch.zeros(len(self.counts), 0, dtype=torch.float64)
        self._points: dict[bytes, _Point] = {}
        self.images = 0

    def start_at(self, coordinates: Tensor) -> None:
        """Make ``coordinates`` the origin, and find the natural units there."""
        self.origin = coordinates.clone()
        self.units = self._coordinates.steps[self._moving] / DIFFERENCE
        self._points.clear()
        for _ in range(4):  # the first guess of a step may be far off, where differences say little
            image = self._image(torch.zeros_like(self.units))
            columns = self._jacobian(torch.zeros_like(self.units))
            sizes = columns.norm(dim=0)
            for label, size in zip(self.labels, sizes.tolist(), strict=True):
                if not size > 0:
                    raise ValueError(f"refine: expected a parameter that changes the image, got {label}")
            ratio = float(image.norm()) / sizes
            if not bool(ratio.isfinite().all()) or not float(image.norm()) > 0:
                raise ValueError("model: expected an image with finite pixels and not all of them 0 to start from")
            self.units = self.units * ratio.clamp(0.01, 100)
            self._points.clear()
            if bool(((ratio > 0.1) & (ratio < 10)).all()):
                break

    @property
    def labels(self) -> list[str]:
        """Names of the coordinates that move in this stage, in the order of ``x``."""
        return [label for label, moves in zip(self._coordinates.labels, self._moving.tolist(), strict=True) if moves]

    def coordinates_at(self, x: Tensor) -> Tensor:
        """All coordinates at ``x``, those that do not move included."""
        at = self.origin.clone()
        at[self._moving] += self.units * x
        return at

    def value(self, x: Tensor) -> float:
        """What is minimised, at ``x``; infinite where the image has pixels that are not finite."""
        return self._point(x).value

    def profile(self, x: Tensor) -> Profile:
        """Scale and background that fit best at ``x``, and what follows from them pixel by pixel."""
        return self._point(x).profile

    def gradient(self, x: Tensor) -> Tensor:
        """Exact: the profile's own derivative by scale and background is 0 at their best."""
        point = self._point(x)
        if point.gradient is None:
            coordinates = self.coordinates_at(x)
            self._coordinates.set(coordinates, self._moving)
            self.images += 3
            image = self._compute()
            slope = self._spread(point.profile.slope * point.profile.coefficients[0])
            image.backward(slope.to(image.dtype))
            gradient = self._coordinates.gradient(coordinates)[self._moving]
            values, slopes = self._coordinates.values(coordinates), self._coordinates.slopes(coordinates)
            gradient = gradient + self._restraint * (values[self._moving] - self._anchor) * slopes[self._moving]
            point.gradient = gradient * self.units
        return point.gradient

    def curvature(self, x: Tensor) -> Tensor:
        """The Gauss-Newton matrix of the profiled value: Fisher's information on ``x`` when scale and background are
        free, from central differences of images ``DIFFERENCE`` natural units to either side."""
        point = self._point(x)
        if point.curvature is None:
            profile = point.profile
            columns = self._jacobian(x) * profile.coefficients[0]
            image = self._image(x)
            nuisance = torch.cat([image.unsqueeze(1), self._terms], dim=1)[:, profile.free]
            weighted = columns * profile.weight.unsqueeze(1)
            curvature = weighted.T @ columns
            if nuisance.shape[1]:
                cross = weighted.T @ nuisance
                inner = (nuisance * profile.weight.unsqueeze(1)).T @ nuisance
                curvature = curvature - cross @ torch.linalg.lstsq(inner, cross.T, driver="gelsd").solution
            coordinates = self.coordinates_at(x)
            slopes = self._coordinates.slopes(coordinates)[self._moving] * self.units
            curvature = curvature + torch.diag(self._restraint * slopes.square())
            point.curvature = (curvature + curvature.T) / 2
        return point.curvature

    def noise(self, x: Tensor) -> float:
        """The variance of a count in units of the variance given; 1 but where the residuals must tell it."""
        if self.variances_known:
            return 1.0
        profile = self._point(x).profile
        freedom = self.used - len(x) - int(profile.free.sum())
        return 2 * profile.value / max(freedom, 1)

    def without_model(self) -> Profile:
        """The best background alone."""
        return self._profile_of(torch.zeros_like(self.counts), None)

    def rounding(self, x: Tensor) -> float:
        """How far the value may be off since images are float32."""
        profile = self._point(x).profile
        return _FLOAT32 * float((profile.slope * profile.expected).norm()) + 1e-15 * abs(profile.value)

    def _point(self, x: Tensor) -> _Point:
        key = x.numpy().tobytes()
        if key not in self._points:
            while len(self._points) > 2:
                self._points.pop(next(iter(self._points)))
            image = self._image(x)
            if not bool(image.isfinite().all()):
                nowhere = torch.full_like(image, math.nan)
                held = torch.zeros(1 + self._terms.shape[1], dtype=torch.float64)
                return _Point(Profile(math.inf, held, held > 0, nowhere, nowhere, nowhere), math.inf)
            last = next(reversed(self._points.values())).profile.coefficients if self._points else None
            profile = self._profile_of(image, last)
            coordinates = self.coordinates_at(x)
            moved = self._coordinates.values(coordinates)[self._moving] - self._anchor
            self._points[key] = _Point(profile, profile.value + float((self._restraint * moved.square()).sum()) / 2)
        return self._points[key]

    def _profile_of(self, image: Tensor, start: Tensor | None) -> Profile:
        design = torch.cat([image.unsqueeze(1), self._terms], dim=1)
        if self._poisson:
            return poisson_profile(design, self.counts, start)
        return gaussian_profile(design, self.counts, self._weight)

    def _image(self, x: Tensor) -> Tensor:
        """The model as it is compared, float64 ``[pixels]``."""
        self._coordinates.set(self.coordinates_at(x), self._moving)
        self.images += 1
        with torch.no_grad():
            return self._seen(self._compute().to(torch.float64))

    def _jacobian(self, x: Tensor) -> Tensor:
        columns = []
        for index in range(len(x)):
            step = torch.zeros_like(x)
            step[index] = DIFFERENCE
            columns.append((self._image(x + step) - self._image(x - step)) / (2 * DIFFERENCE))
        return torch.stack(columns, dim=1)

    def _seen(self, image: Tensor) -> Tensor:
        """Used pixels of an image, or all of it blurred, those that are not used as 0."""
        if self._kernel is None:
            return image[self._used]
        return _blurred(torch.where(self._used, image, 0.0), self._kernel).flatten()

    def _spread(self, values: Tensor) -> Tensor:
        """The transpose of :meth:`_seen`, which is linear."""
        if self._kernel is None:
            image = torch.zeros(self._used.shape, dtype=values.dtype)
            image[self._used] = values
            return image
        return torch.where(self._used, _blurred(values.reshape(self._used.shape), self._kernel), 0.0)


def _gaussian(deviation: float) -> Tensor:
    reach = math.ceil(3 * deviation)
    kernel = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * max(deviation, 1e-9) ** 2))
    return kernel / kernel.sum()


def _blurred(image: Tensor, kernel: Tensor) -> Tensor:
    """``image`` ``[..., slow, fast]`` along both axes, 0 beyond its edges: a symmetric operator."""
    reach = len(kernel) // 2
    stack = image.reshape(-1, 1, *image.shape[-2:])
    stack = torch.nn.functional.conv2d(stack, kernel.reshape(1, 1, -1, 1), padding=(reach, 0))
    stack = torch.nn.functional.conv2d(stack, kernel.reshape(1, 1, 1, -1), padding=(0, reach))
    return stack.reshape(image.shape)
