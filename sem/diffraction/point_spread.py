"""The point spread of a detector: where on it the light of a photon is counted."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sem.diffraction.parameters import choice, parameter, positive

KINDS = ("gauss", "fiber")
"""A Gaussian; what a taper of optical fibres makes, ``g / (2 pi (g² + r²)^(3/2))``, whose tails go far."""

_GAUSS_REACH = 6.0  # standard deviations, beyond which there are 2e-9 of the light
_DEVIATION = 1 / math.sqrt(8 * math.log(2))  # of a Gaussian, in widths at half height
_CORE = 1 / (2 * math.sqrt(2 ** (2 / 3) - 1))  # g of the other, in widths at half height


class PointSpread(nn.Module):
    """A point spread that is the same at every pixel, integrated over the pixels that it falls on.

    Linear and symmetric in the image. The light of a pixel is counted within the detector or lost beyond its edges:
    the sum over an image never grows. "gauss" is cut off at 6 standard deviations; "fiber" reaches from edge to edge.

    Args:
        kind: "gauss" or "fiber", see :data:`KINDS`.
        width: full width at half height, mm.

    Parameters (float64, without gradients until asked for): ``width``.

    Example:
        >>> spot = torch.zeros(5, 5)
        >>> spot[2, 2] = 100.0
        >>> PointSpread("gauss", 0.1)(spot, pixel_size=0.1)[2].round().tolist()
        [0.0, 9.0, 58.0, 9.0, 0.0]

    Raises:
        ValueError: an unknown kind, a width that is not above 0.
    """

    def __init__(self, kind: str, width: float) -> None:
        super().__init__()
        self.kind = choice("point spread", kind, KINDS)
        self.width = parameter(positive("point spread: width", width, "in mm"))

    def forward(self, image: Tensor, pixel_size: float) -> Tensor:
        """``image`` ``[slow, fast]`` as it is counted on pixels of ``pixel_size`` mm, in the image's dtype.

        Computed in float64, with gradients to the image and the width.
        """
        width = (self.width / pixel_size).to(image.device)
        wide = image.to(torch.float64)
        spread = self._by_axis(wide, width) if self.kind == "gauss" else self._by_spectrum(wide, width)
        return spread.to(image.dtype)

    def _by_axis(self, image: Tensor, width: Tensor) -> Tensor:
        deviation = width * _DEVIATION
        reach = math.ceil(_GAUSS_REACH * float(deviation.detach()) + 0.5)
        for side in (0, 1):
            far = min(reach, image.shape[side] - 1)
            edges = torch.arange(-far, far + 2, dtype=torch.float64, device=image.device) - 0.5
            # erfc of the side that is small, so that the differences keep their digits
            beyond = torch.special.erfc(edges.abs() / (deviation * math.sqrt(2))) / 2
            left, right = beyond[:-1], beyond[1:]
            kernel = torch.where(
                edges[:-1] >= 0, left - right, torch.where(edges[1:] <= 0, right - left, 1 - left - right)
            )
            shape = (1, 1, -1, 1) if side == 0 else (1, 1, 1, -1)
            padding = (far, 0) if side == 0 else (0, far)
            image = nn.functional.conv2d(image[None, None], kernel.reshape(shape), padding=padding)[0, 0]
        return image

    def _by_spectrum(self, image: Tensor, width: Tensor) -> Tensor:
        core, (slow, fast) = width * _CORE, image.shape
        size = [_smooth(2 * slow - 1), _smooth(2 * fast - 1)]
        # distances of pixels' edges from a pixel's centre, from 0 on: the other quadrants are alike
        x, y = (torch.arange(pixels + 1, dtype=torch.float64, device=image.device) - 0.5 for pixels in (slow, fast))
        x, y = x[:, None], y[None, :]
        corner = torch.atan(x * y / (core * (core.square() + x.square() + y.square()).sqrt())) / (2 * math.pi)
        quadrant = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]
        kernel = torch.zeros(size, dtype=torch.float64, device=image.device)
        rows, columns = (torch.arange(pixels, device=image.device) for pixels in (slow, fast))
        for row in (rows, (size[0] - rows) % size[0]):
            for column in (columns, (size[1] - columns) % size[1]):
                kernel = kernel.index_put((row[:, None], column[None, :]), quadrant)
        spectrum = torch.fft.rfft2(image, s=size) * torch.fft.rfft2(kernel)
        return torch.fft.irfft2(spectrum, s=size)[:slow, :fast]


def _smooth(least: int) -> int:
    """The smallest number of at least ``least`` that has no prime factors but 2, 3 and 5."""
    number = least
    while True:
        left = number
        for prime in (2, 3, 5):
            while left % prime == 0:
                left //= prime
        if left == 1:
            return number
        number += 1
