"""What engines share.

All begin with an object of ones, or a given one, and a given probe, and report the same numbers of every sweep. They
compute in the dtype of the object and probe that they are given: complex64, or complex128 to look closer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sem.ops import reference
from sem.ptycho.positions import position_steps
from sem.ptycho.scan import Scan


class SweepReport(NamedTuple):
    """A sweep in numbers: ``loss``, the amplitude loss; ``chi_squared = 4 mean (A - X)^2`` over valid pixels, which is
    1 where the reconstruction fits photon noise; ``change`` of the object, ``||O' - O|| / ||O||``; ``seconds`` since
    the start."""

    sweep: int
    loss: float
    chi_squared: float
    change: float
    seconds: float


@dataclass
class Reconstruction:
    """Where an engine is: complex ``object [H, W]``, ``probe [M, N, N]`` and a report of every sweep so far."""

    object: Tensor
    probe: Tensor
    reports: list[SweepReport] = field(default_factory=list)


class Engine:
    """What the engines share.

    Args:
        scan: the patterns.
        probe: complex ``[M, N, N]``, in units of counts: ``sum |P|^2`` are those of a pattern where the object is 1.
        object: complex ``[H, W]``, or None: ones on the smallest that holds all patches.
        probe_from: the sweep, counted from 0, at which the probe begins to move; None: it stays.
        seed: of the order of patterns.
    """

    def __init__(
        self,
        scan: Scan,
        probe: Tensor,
        object: Tensor | None = None,
        *,
        probe_from: int | None = 2,
        seed: int = 0,
    ) -> None:
        side = scan.side
        if probe.dim() != 3 or probe.shape[1:] != (side, side) or not probe.is_complex():
            raise ValueError(f"probe: expected complex [M, {side}, {side}], got {probe.dtype} {list(probe.shape)}")
        if len(scan) == 0:
            raise ValueError("scan: expected at least one pattern, got none")
        if object is None:
            object = torch.ones(scan.object_shape(), dtype=probe.dtype)
        if object.dim() != 2 or object.dtype != probe.dtype:
            raise ValueError(
                f"object: expected {probe.dtype} [H, W], as the probe, got {object.dtype} {list(object.shape)}"
            )
        if not 0 < float(probe.detach().abs().square().sum()) < math.inf:
            raise ValueError("probe: expected finite numbers that are not all 0")
        if not bool(object.isfinite().all()):
            raise ValueError("object: expected finite numbers")
        self.probe_from = probe_from
        self.state = Reconstruction(object.detach().clone(), probe.detach().clone())
        self.generator = torch.Generator().manual_seed(seed)
        real = object.real.dtype
        self.data = scan.amplitudes.to(real)
        self.weight = None if scan.weight is None else scan.weight.to(real)
        valid = torch.ones(side, side, dtype=torch.bool) if self.weight is None else self.weight > 0
        self.valid = valid.expand(self.data.shape)
        self.all_valid = bool(self.valid.all())
        self.background = None if scan.background is None else scan.background.to(real)
        self._stand_at(scan)

    def _stand_at(self, scan: Scan) -> None:
        height, width = self.state.object.shape
        scan.patches((height, width))  # all inside
        self.scan = scan
        self.corners: list[list[int]] = scan.corners.tolist()
        self.positions = scan.positions.to(self.data.dtype)
        self.shift = self.positions - scan.corners
        self.moves = bool(self.shift.any())

    def refine_positions(self, *, damping: float = 0.5, limit: float = 0.5) -> Tensor:
        """Move the positions by :func:`position_steps`, less their mean, which no pattern can tell; returns the steps.

        A position stays inside the object, which begins with a margin for it (``Scan.with_margin``, ``object``).
        """
        state = self.state
        steps = position_steps(self.scan, state.object, state.probe, damping=damping, limit=limit)
        steps = steps - steps.mean(0)
        most = torch.tensor(state.object.shape) - self.scan.side
        moved = torch.minimum((self.scan.positions + steps).clamp_min(0), most)
        steps = moved - self.scan.positions
        self._stand_at(Scan(self.scan.amplitudes, moved, self.scan.weight, self.scan.background))
        return steps

    def run(
        self,
        sweeps: int,
        *,
        stop: Callable[[SweepReport], bool] | None = None,
        progress: Callable[[SweepReport], None] | None = None,
    ) -> Reconstruction:
        """``sweeps`` more; ``stop`` is asked after each. A run that Ctrl-C interrupts keeps the last whole sweep."""
        begun = time.monotonic() - (self.state.reports[-1].seconds if self.state.reports else 0.0)
        for _ in range(sweeps):
            number = len(self.state.reports)
            before = self.state.object
            moves = self.probe_from is not None and number >= self.probe_from
            object, probe, squares = self.sweep(before.clone(), self.state.probe.clone(), moves)
            change = float((object - before).norm() / before.norm().clamp_min(1e-30))
            chi = 4 * squares / max(int(self.valid.sum()), 1)
            report = SweepReport(number, squares / 2, chi, change, time.monotonic() - begun)
            self.state.object, self.state.probe = object, probe
            self.state.reports.append(report)
            if progress is not None:
                progress(report)
            if stop is not None and stop(report):
                break
        return self.state

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        """Object and probe after one sweep, which may change those given, and ``sum (A - X)^2`` over valid pixels."""
        raise NotImplementedError

    def moved(self, probe: Tensor, patterns: slice | int | Tensor, back: bool = False) -> Tensor:
        """The probe as it stands at ``patterns``, ``[.., M, N, N]``; ``back``: what stands there, moved back."""
        if not self.moves:
            return probe
        shift = self.shift[patterns] if not back else -self.shift[patterns]
        # the twin, since it takes any precision
        moved = torch.fft.ifft2(reference.shift_ramp(torch.fft.fft2(probe), shift.view(-1, 2)))
        return moved if shift.dim() == 2 else moved.squeeze(0)

    def project(self, far: Tensor, patterns: slice | int | Tensor) -> tuple[Tensor, Tensor]:
        """The far waves with the measured moduli where a pixel is valid and lit, and ``(A - X)^2`` of valid ones."""
        intensity = far.abs().square().sum(-3)
        if self.background is not None:
            intensity = intensity + self.background
        amplitude, data = intensity.sqrt(), self.data[patterns]
        factor = data / amplitude.clamp_min(1e-30)  # where it is 0, so is the wave
        off = (amplitude - data).square()
        if not self.all_valid:
            valid = self.valid[patterns]
            factor, off = torch.where(valid, factor, 1), torch.where(valid, off, 0)
        return far * factor.unsqueeze(-3), off

    def patch(self, object: Tensor, j: int) -> Tensor:
        y, x = self.corners[j]
        return object[y : y + self.scan.side, x : x + self.scan.side]

    def patches(self, object: Tensor, patterns: Iterable[int]) -> Tensor:
        """Copies of several, ``[.., 1, N, N]``."""
        return torch.stack([self.patch(object, j) for j in patterns]).unsqueeze(1)


def fft(waves: Tensor) -> Tensor:
    return torch.fft.fft2(waves, norm="ortho")


def ifft(waves: Tensor) -> Tensor:
    return torch.fft.ifft2(waves, norm="ortho")
