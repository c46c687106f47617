"""Iterative reconstruction: what engines share, ePIE and rPIE, difference map and RAAR.

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


def _fft(waves: Tensor) -> Tensor:
    return torch.fft.fft2(waves, norm="ortho")


def _ifft(waves: Tensor) -> Tensor:
    return torch.fft.ifft2(waves, norm="ortho")


class PIE(Engine):
    """The ptychographical iterative engine, one pattern after the other in random order: ePIE, and rPIE.

    With ``chi = F^-1[Psi' - Psi]`` and the patch of the object before the update in both lines::

        O   += object_step sum_m conj(P_m) chi_m / ((1 - alpha) |P|^2 + alpha max |P|^2)
        P_m += probe_step conj(O) chi_m          / ((1 - beta)  |O|^2 + beta  max |O|^2)

    Args:
        alpha, beta: above 0, at most 1; both 1 is ePIE, an ``alpha`` of 0.05 to 0.3 a usual rPIE.
        Others: :class:`Engine`.
        order: the order of the first sweeps' patterns, int64 ``[J]``; None: random.
    """

    def __init__(
        self,
        scan: Scan,
        probe: Tensor,
        object: Tensor | None = None,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        object_step: float = 1.0,
        probe_step: float = 1.0,
        probe_from: int | None = 2,
        seed: int = 0,
        order: Tensor | None = None,
    ) -> None:
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 < value <= 1:
                raise ValueError(f"{name}: expected a number > 0, at most 1, got {value}")
        self.alpha, self.beta, self.object_step, self.probe_step = alpha, beta, object_step, probe_step
        self.order = order

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        order = torch.randperm(len(self.scan), generator=self.generator) if self.order is None else self.order
        squares = torch.zeros((), dtype=torch.float64)
        by_object: Tensor | None = None  # the same for all patterns, while the probe is
        for j in order.tolist():
            there = self.moved(probe, j)
            patch = self.patch(object, j)
            far = _fft(there * patch)
            near, off = self.project(far, j)
            squares += off.sum(dtype=torch.float64)
            chi = _ifft(near - far)
            if self.moves or moves or by_object is None:
                by_object = self._by_object(there)
            step = (by_object * chi).sum(0)
            if moves:
                light = patch.abs().square()
                light = (1 - self.beta) * light + self.beta * light.max()
                step_of_probe = patch.conj() * chi / light.clamp_min(torch.finfo(light.dtype).tiny)
                probe = probe + self.probe_step * self.moved(step_of_probe, j, back=True)
            patch += step
        return object, probe, float(squares)

    def _by_object(self, probe: Tensor) -> Tensor:
        """What ``chi`` is multiplied by in the object's step."""
        power = probe.abs().square().sum(0)
        return self.object_step * probe.conj() / ((1 - self.alpha) * power + self.alpha * power.max())


class Projections(Engine):
    """Difference map (``beta`` 1) and RAAR (0.8 is a good one): all patterns at once, by two projections in turn.

    The overlap projection is ``O = sum conj(P) psi / sum |P|^2``, ``P = sum conj(O) psi / sum |O|^2``, ``inner`` times;
    with ``m = P O`` behind it, ``psi <- beta psi + (1 - 2 beta) m + beta F^-1[Pi_X F[2 m - psi]]``. It holds the waves
    of all patterns: :meth:`memory` says how much before it begins.
    """

    FLOOR = 1e-8
    """Of the largest sum: below it the value before stays."""

    def __init__(
        self,
        scan: Scan,
        probe: Tensor,
        object: Tensor | None = None,
        *,
        beta: float = 1.0,
        inner: int = 1,
        probe_from: int | None = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed)
        if not 0 < beta <= 1:
            raise ValueError(f"beta: expected a number > 0, at most 1, got {beta}")
        self.beta, self.inner = beta, inner
        self.waves: Tensor | None = None

    @staticmethod
    def memory(scan: Scan, modes: int = 1) -> int:
        """Bytes that a run holds beside the scan, in complex64: of every pattern five waves of each mode, of which one
        stays from sweep to sweep, and three to share."""
        return (5 * modes + 3) * 8 * len(scan) * scan.side**2

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        everything = slice(None)
        if self.waves is None:
            self.waves = self.moved(probe, everything) * self.patches(object, range(len(self.scan)))
        for _ in range(self.inner):
            object = self._object(object, self.moved(probe, everything))
            if moves:
                probe = self._probe(object, probe)
        m = self.moved(probe, everything) * self.patches(object, range(len(self.scan)))
        squares = float(self.project(_fft(m), everything)[1].sum(dtype=torch.float64))
        measured = _ifft(self.project(_fft(2 * m - self.waves), everything)[0])
        self.waves = measured.mul_(self.beta).add_(m, alpha=1 - 2 * self.beta).add_(self.waves, alpha=self.beta)
        return object, probe, squares

    def _object(self, object: Tensor, probe: Tensor) -> Tensor:
        assert self.waves is not None
        light, sums = torch.zeros_like(object.real), torch.zeros_like(object)
        power = probe.abs().square().sum(-3).expand(self.data.shape)
        added = (probe.conj() * self.waves).sum(-3)
        for j in range(len(self.scan)):
            self.patch(light, j).add_(power[j])
            self.patch(sums, j).add_(added[j])
        floor = self.FLOOR * light.max()
        return torch.where(light > floor, sums / light.clamp_min(floor), object)

    def _probe(self, object: Tensor, probe: Tensor) -> Tensor:
        assert self.waves is not None
        everything = slice(None)
        patches = self.patches(object, range(len(self.scan)))
        light = patches.abs().square().sum((0, 1))
        floor = self.FLOOR * light.max()
        if not self.moves:
            sums = (patches.conj() * self.waves).sum(0)
            return torch.where(light > floor, sums / light.clamp_min(floor), probe)
        # Between pixels the sums are no multiples of the probe, and divided by the light they grow without bound: as
        # far along the same direction as brings the waves nearest.
        off = self.waves - self.moved(probe, everything).mul_(patches)
        slope = self.moved(patches.conj() * off, everything, back=True).sum(0)
        along = torch.where(light > floor, slope / light.clamp_min(floor), 0)
        reach = self.moved(along, everything).mul_(patches).abs().square().sum()
        return probe + along * ((along.conj() * slope).real.sum() / reach.clamp_min(torch.finfo(reach.dtype).tiny))
