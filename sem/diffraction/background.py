"""What arrives besides the crystal's diffraction: an image of it, or its profile over the scattering angle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sem.diffraction.detector import Detector
from sem.diffraction.parameters import DEGREE, choice, nonnegative, parameter
from sem.diffraction.rotations import about_axis, unit

AXES = ("q", "two_theta", "stol")
"""What a profile runs over: ``4 pi sin(theta) / wavelength`` and ``sin(theta) / wavelength`` in 1/Å, two theta in
degrees."""


class Background(nn.Module):
    """Mean photons in each pixel that are added to the diffraction of the crystal, before any noise.

    Args:
        image: photons ``[slow, fast]``, or else
        profile: pairs of a place on the ``axis`` and photons per pixel there, straight lines between them, and the
            first and last value beyond them.
        axis: "q", "two_theta" or "stol", see :data:`AXES`; the beam's direction and central wavelength count.
        scale: a factor on all of it.

    Parameters (float64, without gradients until asked for): ``scale``, and ``image`` or ``values``. The gradient of a
    profile reaches the detector's geometry and, but for "two_theta", the wavelength.

    Example:
        >>> background = Background(profile=[(0.0, 8.0), (10.0, 2.0)], axis="two_theta", scale=3.0)
        >>> detector = Detector((3, 1), 20.0, 100.0, beam_center=(0.0, 0.0))  # MOSFLM adds half a pixel
        >>> background(detector, torch.tensor(1.0)).round(decimals=2).tolist()
        [[24.0, 6.0, 6.0]]

    Raises:
        ValueError: both or neither of image and profile, numbers below 0 or that are none, fewer than two pairs, two at
            one place, an unknown axis.
    """

    def __init__(
        self,
        image: Tensor | None = None,
        *,
        profile: Sequence[Sequence[float]] | Tensor | None = None,
        axis: str = "q",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if (image is None) == (profile is None):
            raise ValueError("background: expected an image or a profile, one of the two")
        self.axis = choice("background axis", axis, AXES)
        self.scale = parameter(nonnegative("background scale", scale))
        self.image: nn.Parameter | None = None
        if image is not None:
            if image.dim() != 2 or not image.numel():
                raise ValueError(f"background image: expected [slow, fast], got {list(image.shape)}")
            _require_photons("background image", image)
            self.image = parameter(image)
            return
        pairs = torch.as_tensor(profile, dtype=torch.float64)
        if pairs.dim() != 2 or pairs.shape[1] != 2 or len(pairs) < 2:
            raise ValueError(f"background profile: expected two or more pairs, got shape {list(pairs.shape)}")
        _require_photons("background profile", pairs)
        pairs = pairs[pairs[:, 0].argsort()]
        if bool((pairs[1:, 0] == pairs[:-1, 0]).any()):
            raise ValueError(f"background profile: expected one value at each {axis}, got two at one")
        self.places: Tensor
        self.register_buffer("places", pairs[:, 0].clone())
        self.values = parameter(pairs[:, 1])

    def forward(self, detector: Detector, wavelength: Tensor, physics: str = "nanobragg") -> Tensor:
        """Photons of every pixel, float64 ``[slow, fast]``; ``wavelength`` in Å.

        Raises:
            ValueError: an image of another shape than the detector.
        """
        self.require_fit(detector)
        if self.image is not None:
            return self.scale * self.image
        sine = half_angle_sines(detector, physics)
        if self.axis == "two_theta":
            place = 2 * sine.clamp(max=1.0).arcsin() / DEGREE
        else:
            place = sine * (4 * math.pi if self.axis == "q" else 1.0) / wavelength
        return self.scale * _interpolated(place, self.places, self.values)

    def require_fit(self, detector: Detector) -> None:
        """Raise a ValueError for an image of another shape than the detector."""
        shape = detector.slow_pixels, detector.fast_pixels
        if self.image is not None and self.image.shape != shape:
            wanted = f"{shape[0]} x {shape[1]} pixels, slow and fast, as the detector has"
            raise ValueError(f"background image: expected {wanted}, got {' x '.join(map(str, self.image.shape))}")


def half_angle_sines(detector: Detector, physics: str = "nanobragg") -> Tensor:
    """sin(theta) of every pixel's middle, float64 ``[slow, fast]``: half the chord between its direction and the
    beam's, which keeps all digits where the angle is small, and has a gradient at the beam's spot too, 0."""
    frame = detector(physics)
    origin, fast, slow = (
        torch.as_tensor(vector, dtype=torch.float64) for vector in (frame.origin, frame.fast, frame.slow)
    )
    rows, columns = (
        (torch.arange(pixels, dtype=torch.float64, device=origin.device) + 0.5) * frame.pixel_size
        for pixels in frame.shape
    )
    points = origin + rows[:, None, None] * slow + columns[None, :, None] * fast
    if frame.curvature is not None:
        distance, beam = (
            torch.as_tensor(part, dtype=torch.float64) for part in (frame.curvature.distance, frame.curvature.beam)
        )
        bent = about_axis((distance * beam).expand_as(points), slow, points[..., 1] / distance)
        points = about_axis(bent, fast, points[..., 2] / distance)
    return (unit(points) - unit(detector.axes.beam)).norm(dim=-1) / 2


def scattering_angles(detector: Detector, physics: str = "nanobragg") -> Tensor:
    """2 theta of every pixel's middle, float64 ``[slow, fast]``, radians."""
    return 2 * half_angle_sines(detector, physics).clamp(max=1.0).arcsin()


def _interpolated(place: Tensor, places: Tensor, values: Tensor) -> Tensor:
    inside = place.clamp(float(places[0]), float(places[-1]))
    upper = torch.searchsorted(places, inside.detach()).clamp(1, len(places) - 1)
    low, high = places[upper - 1], places[upper]
    share = (inside - low) / (high - low)
    return values[upper - 1] * (1 - share) + values[upper] * share


def _require_photons(name: str, numbers: Tensor) -> None:
    if not bool(numbers.isfinite().all()) or bool((numbers < 0).any()):
        raise ValueError(f"{name}: expected finite numbers >= 0, got others among them")
