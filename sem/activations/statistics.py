"""The statistics of one layer, streamed over its outputs in two passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sem.activations.layers import widened
from sem.activations.layout import Layout
from sem.activations.moments import Moments, Number, Spread

DEAD = 1e-6
"""A channel is dead whose standard deviation is at most this share of the layer's."""
LOW_FREQUENCY = 1 / 8
"""The largest low frequency, cycles per position."""


class LayerStatistics:
    """What is known of one layer: :meth:`see` takes each output of the first pass, :meth:`sort_in` of the second.

    :func:`sem.activations.measure` says what the :meth:`statistics` are.
    """

    def __init__(self) -> None:
        self._samples = self._nonfinite = self._zeros = 0
        self._numbers, self._amplitudes, self._phases = Spread(), Spread(), Spread()
        self._channels: Moments | None = None
        self._elements: Moments | None = None
        self._sizes: Moments | None = None
        self._space = torch.zeros(4, dtype=torch.float64)
        self._turn = torch.zeros(3, dtype=torch.float64)
        self._has_positions = self._complex = False

    def see(self, output: Tensor, layout: Layout) -> None:
        """First pass.

        Raises:
            ValueError: the channels are not those of earlier outputs.
        """
        seen = _Seen.of(output, layout)
        if output.numel() == 0:
            return
        self._complex = output.is_complex()
        self._has_positions = bool(seen.positions)
        self._samples += len(seen.parts)
        self._merge_moments(seen)
        self._space += seen.energies().cpu()
        numbers, sizes = seen.numbers(), seen.amplitudes()
        self._nonfinite += seen.parts.numel() - numbers.numel()
        if numbers.numel() == 0:
            return
        self._zeros += int((numbers == 0).sum())
        self._numbers.see(numbers)
        found = Moments.of(sizes, None, [0]).cpu()
        self._sizes = found if self._sizes is None else self._sizes.merged(found)
        if self._complex:
            phases = seen.phases()
            self._amplitudes.see(sizes)
            self._phases.see(phases)
            self._turn += torch.stack([phases.cos().sum(), phases.sin().sum(), torch.ones_like(phases).sum()]).cpu()

    def sort_in(self, output: Tensor, layout: Layout) -> None:
        """Second pass, of the same outputs.

        Raises:
            ValueError: they are not the same.
        """
        seen = _Seen.of(output, layout)
        self._numbers.sort_in(seen.numbers())
        if output.is_complex():
            self._amplitudes.sort_in(seen.amplitudes())
            self._phases.sort_in(seen.phases())

    def check_passes(self) -> None:
        """Raise ``ValueError`` unless both passes had as many values."""
        first, second = self._numbers.count, self._numbers.sorted_in
        if first != second:
            raise ValueError(f"expected the {first} finite values of the first pass, got {second} in the second")

    def statistics(self) -> dict[str, Number]:
        """The layer's statistics by name; of a layer without a finite value, their number alone."""
        count = self._numbers.count
        if not count or self._channels is None or self._sizes is None:
            return {"count": 0, "nonfinite": self._nonfinite}
        layer = self._channels.pooled([0, 1])
        std = float(layer.std)
        by_channel = self._channels.mean_squares([1]).sqrt()
        dead = int((by_channel <= DEAD * std).sum())
        size, deviation = float(self._sizes.mean), float(self._sizes.std)
        energy, constant, low, varying = self._space.tolist()
        result: dict[str, Number] = {
            "count": count,
            "nonfinite": self._nonfinite,
            "channels": len(by_channel),
            "dead_channels": dead,
            "dead_share": dead / len(by_channel),
            "mean": float(layer.mean),
            "std": std,
            **self._numbers.statistics(),
            "mean_abs": size,
            "zero_share": self._zeros / count,
            "rel_amp_std": _ratio(deviation, size),
            "dc_share": _ratio(constant, energy) if self._has_positions else None,
            "low_freq_ratio": _ratio(low, varying),
            "between_sample_share": self._between_sample_share(float(layer.squares)),
        }
        if self._complex:
            result |= {"amplitude_mean": size, "amplitude_std": deviation}
            result |= self._amplitudes.statistics("amplitude_")
            result |= self._directions()
            result |= self._phases.statistics("phase_")
        return result

    def _merge_moments(self, seen: _Seen) -> None:
        elements = Moments.of(seen.parts, seen.finite, [0])
        channels = elements.pooled(range(2, elements.mean.dim())).cpu()
        if self._channels is None:
            self._channels, self._elements = channels, elements
            return
        before, now = (list(moments.mean.shape) for moments in (self._channels, channels))
        if before != now:
            raise ValueError(f"expected {before[0]} channels of {before[1]} parts, as before, got {now[0]} of {now[1]}")
        self._channels = self._channels.merged(channels)
        if self._elements is None or self._elements.mean.shape != elements.mean.shape:
            self._elements = None  # samples of several lengths have no common positions
        else:
            self._elements = self._elements.merged(elements)

    def _between_sample_share(self, squares: float) -> float | None:
        if self._elements is None or self._samples < 2:
            return None
        return float(self._elements.squares.sum()) / squares if squares else 0.0

    def _directions(self) -> dict[str, Number]:
        """Mean direction and circular standard deviation of the phases: Mardia and Jupp, *Directional Statistics*
        (2000), section 2.3."""
        cosine, sine, count = self._turn.tolist()
        length = min(math.hypot(cosine, sine) / count, 1.0) if count else 0.0
        if not length:
            return {"phase_mean": None, "phase_std": None}
        return {"phase_mean": math.atan2(sine, cosine), "phase_std": math.sqrt(-2 * math.log(length))}


@dataclass(frozen=True)
class _Seen:
    """An output in double precision.

    Attributes:
        parts: float64 `[B, C, R, *positions]`, R = 2 for the real and imaginary parts of complex numbers, else 1; 0
            where a number is not finite.
        finite: bool `[B, C, 1, *positions]`; None where all numbers are.
    """

    parts: Tensor
    finite: Tensor | None

    @classmethod
    def of(cls, output: Tensor, layout: Layout) -> _Seen:
        values = layout.arranged(widened(output))
        parts = torch.view_as_real(values).movedim(-1, 2) if values.is_complex() else values.unsqueeze(2)
        parts = parts.contiguous()  # all that follows passes over it many times
        if bool(parts.sum().isfinite()):  # then all of them are
            return cls(parts, None)
        finite = parts.isfinite().all(2, keepdim=True)
        return cls(parts, None) if bool(finite.all()) else cls(parts.where(finite, 0.0), finite)

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(range(3, self.parts.dim()))

    def numbers(self) -> Tensor:
        """The finite real numbers, `[N]`."""
        return self.parts.flatten() if self.finite is None else self.parts[self.finite.expand_as(self.parts)]

    def amplitudes(self) -> Tensor:
        """The magnitudes of the finite numbers, real or complex, `[N]`."""
        sizes = torch.hypot(*self.parts.split(1, 2)) if self.parts.shape[2] == 2 else self.parts.abs()
        return sizes.flatten() if self.finite is None else sizes[self.finite]

    def phases(self) -> Tensor:
        """The phases of the finite complex numbers that are not 0, in (-pi, pi], `[N]`."""
        real, imaginary = self.parts.unbind(2)
        there = (real != 0) | (imaginary != 0)
        phases = torch.atan2(imaginary, real)
        return phases.flatten() if bool(there.all()) else phases[there]

    def energies(self) -> Tensor:
        """float64 `[4]`: the sum of squares, what of it is constant over positions in each channel of each sample, what
        is of low frequency, and of any frequency but 0. The last two are of maps without a number that is not
        finite."""
        energy = self.parts.square().sum()
        if not self.positions:
            return torch.stack([energy, *energy.new_zeros(3)])
        means = Moments.of(self.parts, self.finite, self.positions)
        constant = (means.count * means.mean.square()).sum()
        maps = self.parts if self.finite is None else self.parts * self.finite.double().amin(self.positions, True)
        return torch.stack([energy, constant, *_spectrum(maps, self.positions)])


def _spectrum(maps: Tensor, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The energy of real ``maps`` along ``positions`` at 0 < abs(q) <= :data:`LOW_FREQUENCY` and at all q but 0."""
    sizes = [maps.shape[axis] for axis in positions]
    # A constant has no energy but at q = 0; without it, none is left by rounding either.
    start = maps.flatten(positions[0])[..., 0].reshape(*maps.shape[: positions[0]], *[1] * len(sizes))
    waves = torch.view_as_real(torch.fft.rfftn(maps - start, dim=tuple(positions), norm="ortho"))
    power = waves.square().sum((*range(positions[0]), -1))
    last = sizes[-1]
    squared = torch.fft.rfftfreq(last, dtype=torch.float64, device=maps.device).square()
    twice = torch.full_like(squared, 2.0)  # rfft leaves out the frequencies -q
    twice[0] = 1.0
    if last % 2 == 0:
        twice[-1] = 1.0
    for size in reversed(sizes[:-1]):
        other = torch.fft.fftfreq(size, dtype=torch.float64, device=maps.device).square()
        squared = other.view(-1, *[1] * squared.dim()) + squared
    power = power * twice
    rounding = 1e-12
    low = (squared > 0) & (squared <= LOW_FREQUENCY**2 * (1 + rounding))
    return (power * low).sum(), (power * (squared > 0)).sum()


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
