"""A scan as a network sees it: what goes in, what the forward model compares with, and the order of the patterns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sem.ptycho.files import Geometry, ScanFile
from sem.ptycho.scan import Scan

_SEEDS = 1_000_003
"""Epochs before the orders of one seed could be those of the next."""


@dataclass(frozen=True, eq=False)
class NetworkScan:
    """A scan whose probe is known, ready for a network.

    Attributes:
        name: of the file it came from.
        scan: the patterns.
        probe: complex64 ``[M, N, N]``, in units of counts.
        truth: complex64 ``[H, W]``, or None where nobody knows it.
        geometry: of the file, or None.
    """

    name: str
    scan: Scan
    probe: Tensor
    truth: Tensor | None
    geometry: Geometry | None = None

    @classmethod
    def from_file(cls, name: str, content: ScanFile) -> NetworkScan:
        """Of what :func:`sem.ptycho.read_scan` returned.

        Raises:
            ValueError: the file has no probe, no pattern, or a truth that does not hold all patches.
        """
        if content.probe is None:
            raise ValueError(f"{name}: expected a probe in the file, since a network is trained with a known one")
        if len(content.scan) == 0:
            raise ValueError(f"{name}: expected at least one pattern, got none")
        if content.object is not None:
            height, width = content.object.shape
            content.scan.patches((height, width))
        return cls(name, content.scan, content.probe.to(torch.complex64), content.object, content.geometry)

    @property
    def power(self) -> Tensor:
        """``sum_m |P_m|^2``, float32 ``[N, N]``: what a pattern can tell of each pixel of its patch."""
        return self.probe.abs().square().sum(0)

    @property
    def object_shape(self) -> tuple[int, int]:
        """The truth's, or that of the smallest object that holds all patches."""
        if self.truth is not None:
            height, width = self.truth.shape
            return height, width
        return self.scan.object_shape(margin=0)

    def inputs(self, rms: float) -> Tensor:
        """``X / rms`` with the zero frequency in the middle, float32 ``[J, 1, N, N]``; 0 where no pixel is valid."""
        data = self.scan.amplitudes
        if self.scan.weight is not None:
            data = torch.where(self.scan.weight > 0, data, 0)
        return torch.fft.fftshift(data / rms, dim=(-2, -1)).unsqueeze(1).contiguous()


def root_mean_square(scan: Scan, patterns: Tensor) -> float:
    """Of the valid amplitudes of some patterns: what a network's input is divided by."""
    data = scan.amplitudes[patterns].double()
    if scan.weight is None:
        return float(data.square().mean().sqrt()) or 1.0
    weight = (scan.weight if scan.weight.dim() == 2 else scan.weight[patterns]).double().expand_as(data)
    return float(((weight * data.square()).sum() / weight.sum().clamp_min(1.0)).sqrt()) or 1.0


def split(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the patterns to train on and of those held out, each in order: every pattern once.

    Example:
        >>> train, held_out = split(10, 0.2, seed=0)
        >>> len(train), len(held_out), sorted([*train.tolist(), *held_out.tolist()]) == list(range(10))
        (8, 2, True)
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = min(int(round(count * share)), count - 1)
    return order[held_out:].sort().values, order[:held_out].sort().values


def neighbours(positions: Tensor, side: int) -> Tensor:
    """For each pattern the ``side ** 2`` nearest, itself among them, int64 ``[J, side ** 2]`` in order.

    On a raster they are a square of ``side x side`` that begins near the pattern, or, at the edge, what is nearest to
    one: distances are the larger of rows' and columns', from the pattern for an odd ``side``, for an even one from half
    a step beyond it.

    Example:
        >>> grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
        >>> neighbours(grid, 2)[5].tolist()
        [5, 6, 9, 10]
    """
    step = 0.0
    if side % 2 == 0 and len(positions) > 1:
        step = float(_distances(positions, positions).fill_diagonal_(torch.inf).amin(1).median())
    return nearest(positions + step / 2, positions, side * side)


def nearest(points: Tensor, positions: Tensor, count: int) -> Tensor:
    """Numbers of the ``count`` positions nearest to each point, or of all, int64 ``[points, count]`` in order."""
    found = _distances(points, positions).argsort(dim=1, stable=True)
    return found[:, :count].sort(dim=1).values


def _distances(points: Tensor, positions: Tensor) -> Tensor:
    return (points.unsqueeze(1) - positions).abs().amax(2)


class PatternBatches:
    """Endless batches of patterns' numbers, in an order that a seed decides; its position can be saved.

    A pattern alone, or the centre of a group, comes once per epoch, and epochs follow each other without a gap, or each
    ends with a shorter batch. Of several processes each takes every so-manieth batch.

    Args:
        patterns: numbers to draw from, int64 ``[J]``.
        groups: for each of them its group, int64 ``[J, G]``; None: each alone.
        size: patterns of a batch: a multiple of ``G``, or rounded up to it.
        seed: of the order.
        ragged: whether an epoch ends with what is left.

    Example:
        >>> batches = PatternBatches(torch.arange(4), None, size=3, seed=0)
        >>> found = [next(iter(batches)).flatten().tolist() for _ in range(4)]
        >>> [sorted(sum(found, [])[k : k + 4]) for k in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
        True
    """

    def __init__(
        self,
        patterns: Tensor,
        groups: Tensor | None,
        *,
        size: int,
        seed: int,
        ragged: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.patterns = patterns
        self.groups = patterns.unsqueeze(1) if groups is None else groups
        self.count = -(-size // self.groups.shape[1])
        self.seed, self.ragged, self.rank, self.world_size = seed, ragged, rank, world_size
        self.drawn = 0
        self._epoch: int | None = None

    @property
    def steps_per_epoch(self) -> float:
        """Batches in which every pattern was the centre of a group once, or was there alone."""
        return len(self.patterns) / self.count

    def __iter__(self) -> Iterator[Tensor]:
        """``[groups, G]`` numbers each; what was drawn is not drawn again by a second iterator."""
        while True:
            batch = self.drawn * self.world_size + self.rank
            first, last = self.count * batch, self.count * (batch + 1)
            if self.ragged:
                total = len(self.patterns)
                epoch, place = divmod(batch, -(-total // self.count))
                first, last = (epoch * total + min(self.count * k, total) for k in (place, place + 1))
            self.drawn += 1
            yield self.groups[[self._centre(k) for k in range(first, last)]]

    def _centre(self, number: int) -> int:
        epoch, place = divmod(number, len(self.patterns))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_SEEDS * self.seed + epoch)
            self._order, self._epoch = torch.randperm(len(self.patterns), generator=generator).tolist(), epoch
        return self._order[place]

    def state_dict(self) -> dict[str, Any]:
        """How many patterns were drawn, and what :meth:`load_state_dict` compares before it goes on from there."""
        own = {"patterns": len(self.patterns), "count": self.count, "seed": self.seed, "ragged": self.ragged}
        return {"drawn": self.drawn, **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind what was drawn.

        Raises:
            ValueError: the state is one of other patterns, batches or another seed.
        """
        own, state = self.state_dict(), {"ragged": False, **state}  # which earlier ones were, and did not say
        for name in ("patterns", "count", "seed", "ragged"):
            if state.get(name) != own[name]:
                raise ValueError(f"batches: expected {name} = {own[name]}, got {state.get(name)}")
        self.drawn = int(state["drawn"])

    def close(self) -> None:
        """Nothing is held open."""
