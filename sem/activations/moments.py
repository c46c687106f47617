"""Streamed moments and percentiles in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 4096
PERCENTILES = (1, 5, 50, 95, 99)

Number = int | float | None
"""A statistic; None where it is not defined."""


class Moments:
    """Number, mean and sum of squared deviations of several streams of values: float64 tensors of one shape.

    Streams are joined as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979). Deviations are taken from a value of the stream, so that one of equal values has exactly none.
    """

    def __init__(self, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        self.count, self.mean, self.squares = count, mean, squares

    @classmethod
    def of(cls, values: Tensor, finite: Tensor | None, axes: Sequence[int]) -> Moments:
        """Of float64 ``values`` along ``axes``; where ``finite`` (bool, broadcast) is False they are left out."""
        weight = values.new_ones(()) if finite is None else finite.double()
        return _joined(weight.expand_as(values), values, values.new_zeros(()).expand_as(values), axes)

    def pooled(self, axes: Sequence[int]) -> Moments:
        """The streams along ``axes`` as one."""
        return _joined(self.count, self.mean, self.squares, axes)

    def merged(self, other: Moments) -> Moments:
        """These values and ``other``'s, of the same shape."""
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        step = other.mean - self.mean
        squares = self.squares + other.squares + step.square() * self.count * share
        return Moments(count, self.mean + step * share, squares)

    def mean_squares(self, axes: Sequence[int]) -> Tensor:
        """The squared deviations, each from its own stream's mean, averaged over all values of the streams along
        ``axes``; NaN where there are none."""
        axes = tuple(axes)
        return self.squares.sum(axes) / self.count.sum(axes)

    def cpu(self) -> Moments:
        """The same on the CPU."""
        return Moments(self.count.cpu(), self.mean.cpu(), self.squares.cpu())

    @property
    def std(self) -> Tensor:
        """The root of the mean squared deviation (division by the number)."""
        return (self.squares / self.count.clamp(min=1)).sqrt()


def _joined(count: Tensor, mean: Tensor, squares: Tensor, axes: Sequence[int]) -> Moments:
    """Pool streams along ``axes``; those of no value have any finite mean."""
    axes = tuple(axes)
    if not axes:
        return Moments(count, mean, squares)
    base = mean.where(count > 0, math.inf).amin(axes, keepdim=True)
    base = base.where(base.isfinite(), 0.0)
    total = count.sum(axes, keepdim=True)
    centre = base + (count * (mean - base)).sum(axes, keepdim=True) / total.clamp(min=1)
    spread = (count * (mean - centre).square()).sum(axes)
    return Moments(total.squeeze(axes), centre.squeeze(axes), squares.sum(axes) + spread)


class Spread:
    """The range of a stream of values, and its percentiles by a histogram of a second pass over the same values.

    Percentiles are those of :func:`numpy.percentile` (linear between the two neighbouring values), each value known to
    one of :data:`BINS` equal bins between the least and the largest.

    Example:
        >>> spread, values = Spread(), torch.arange(101, dtype=torch.float64)
        >>> spread.see(values)
        >>> spread.sort_in(values)
        >>> abs(spread.percentile(95) - 95) <= spread.bin
        True
    """

    def __init__(self) -> None:
        self.count = 0
        self.low, self.high = math.inf, -math.inf
        self._bins: Tensor | None = None

    @property
    def bin(self) -> float:
        """The width of a bin, the largest error of a percentile."""
        return (self.high - self.low) / BINS

    @property
    def sorted_in(self) -> int:
        """How many values the second pass has had."""
        return 0 if self._bins is None else int(self._bins.sum())

    def see(self, values: Tensor) -> None:
        """First pass: float64 values, finite."""
        if values.numel() == 0:
            return
        low, high = torch.stack(torch.aminmax(values)).tolist()
        self.count += values.numel()
        self.low, self.high = min(self.low, low), max(self.high, high)

    def sort_in(self, values: Tensor) -> None:
        """Second pass, of the same values.

        Raises:
            ValueError: a value is more than a bin out of the range that the first pass saw.
        """
        if values.numel() == 0:
            return
        low, high = torch.stack(torch.aminmax(values)).tolist()
        if not (low >= self.low - self.bin and high <= self.high + self.bin):
            raise ValueError(
                f"expected the values of the first pass, between {self.low:g} and {self.high:g}, "
                f"got some between {low:g} and {high:g}"
            )
        width = self.high - self.low
        place = (values - self.low) / (width if 0 < width < math.inf else 1.0)
        index = (place.clamp(0, 1) * BINS).long().clamp(max=BINS - 1)
        bins = torch.bincount(index.flatten(), minlength=BINS)
        self._bins = bins if self._bins is None else self._bins + bins

    def percentile(self, percent: float) -> float | None:
        """None where there is no value, or the range is wider than a float64."""
        if self._bins is None or not math.isfinite(self.high - self.low):
            return None
        bins = self._bins.cpu()
        upper = bins.cumsum(0)

        def value(rank: int) -> float:
            index = int(torch.searchsorted(upper, rank, right=True))
            inside = rank - int(upper[index] - bins[index])
            return self.low + self.bin * (index + (inside + 0.5) / int(bins[index]))

        rank = percent / 100 * (int(upper[-1]) - 1)
        below, above = value(math.floor(rank)), value(math.ceil(rank))
        return below + (above - below) * (rank - math.floor(rank))

    def statistics(self, prefix: str = "") -> dict[str, Number]:
        """``min``, ``max``, ``p1`` to ``p99`` and ``percentile_error``."""
        seen = self.count > 0
        return {
            f"{prefix}min": self.low if seen else None,
            f"{prefix}max": self.high if seen else None,
            **{f"{prefix}p{percent}": self.percentile(percent) for percent in PERCENTILES},
            f"{prefix}percentile_error": self.bin if seen else None,
        }
