"""Difference map and RAAR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sem.ops.boundary import count
from sem.ptycho.engine import Constraint, Engine
from sem.ptycho.model import fft, ifft
from sem.ptycho.scan import Scan


class Projections(Engine):
    """Difference map (``beta`` 1) and RAAR (0.8 is a good one): all patterns at once, by two projections in turn.

    The overlap projection is ``O = sum conj(P) psi / sum |P|^2``, ``P = sum conj(O) psi / sum |O|^2``, ``inner`` times,
    and then what constraints make of both; with ``m = P O`` behind it, ``psi <- beta psi + (1 - 2 beta) m + beta F^-1[
    Pi_X F[2 m - psi]]``. It holds the waves of all patterns: :meth:`memory` says how much before it begins.

    Args:
        beta: above 0, at most 1.
        inner: rounds of the overlap projection in a sweep, at least 1.
        Others: :class:`Engine`.

    Raises:
        ValueError: a setting out of its range, or an object and a probe that do not fit the scan.

    Example:
        >>> from sem.ptycho import disk_probe, lines_object, raster_scan, simulate
        >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 5))
        >>> reports = Projections(scan, probe, beta=0.8).run(5).reports
        >>> reports[-1].loss < reports[0].loss
        True
    """

    FLOOR = 1e-8
    """Of the largest sum: below it the value before stays."""
    SETTINGS: ClassVar[tuple[str, ...]] = (*Engine.SETTINGS, "beta", "inner")

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
        constraints: Iterable[Constraint] = (),
    ) -> None:
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed, constraints=constraints)
        if not 0 < beta <= 1:
            raise ValueError(f"beta: expected a number > 0, at most 1, got {beta}")
        self.beta, self.inner = beta, count("inner", inner, least=1)
        self._far: Tensor | None = None
        """``F psi``, which is all that is kept from sweep to sweep: one transform less than with ``psi``."""
        self._near: Tensor | None = None
        """``psi`` during the overlap projection."""

    @staticmethod
    def memory(scan: Scan, modes: int = 1) -> int:
        """Bytes that a run holds beside the scan, in complex64: of every pattern two waves of each mode, of which one
        stays from sweep to sweep, and four of a block that is worked on, five between pixels."""
        frame, between = 8 * modes * scan.side**2, bool((scan.positions != scan.corners).any())
        return 2 * frame * len(scan) + (4 + between) * min(frame * len(scan), max(2**20, frame))

    @property
    def waves(self) -> Tensor | None:
        """``psi``, ``[J, M, N, N]``; None before the first sweep."""
        return None if self._far is None else ifft(self._far)

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        """As :meth:`Engine.sweep`: both projections of all patterns at once. The loss is that of object and probe
        behind the overlap projection."""
        model, blocks = self.model, self.model.blocks(len(probe))
        near = torch.empty(len(self.scan), *probe.shape, dtype=probe.dtype)
        if self._far is None:
            self._far = torch.empty_like(near)
            for part in blocks:
                near[part] = model.exit_waves(object, model.moved(probe, part), part)
                fft(near[part], out=self._far[part])
        else:
            for part in blocks:
                ifft(self._far[part], out=near[part])
        self._near = near
        try:
            for _ in range(self.inner):
                object = self._object(object, probe)
                if moves:
                    probe = self._probe(object, probe)
            object, probe = self.constrain(object, probe)
        finally:
            near, self._near = self._near, None
        for part in blocks:  # near makes way for what follows, all of it in Fourier space
            m = fft(model.exit_waves(object, model.moved(probe, part), part))
            before, after = self._far[part], near[part]
            measured = model.residual(torch.sub(m, before, alpha=0.5).mul_(2), part, "projection")
            torch.mul(before, self.beta, out=after).add_(m, alpha=1 - 2 * self.beta).add_(measured, alpha=self.beta)
            model.residual(m, part)  # last, since its reports are those of the object and the probe
        self._far = near
        return object, probe, model.squares()

    def _object(self, object: Tensor, probe: Tensor) -> Tensor:
        assert self._near is not None
        model = self.model
        sums, light = torch.zeros_like(object), torch.zeros_like(object.real)
        for part in model.blocks(len(probe)):
            found = model.overlap(self._near[part], object, model.moved(probe, part), part, to_probe=False)
            sums += found.to_object
            light += found.illumination
        return self._quotient(sums, light, object)

    def _probe(self, object: Tensor, probe: Tensor) -> Tensor:
        assert self._near is not None
        model, blocks = self.model, self.model.blocks(len(probe))
        # Between pixels the sums are no multiples of the probe, and divided by the light they grow without bound: there
        # they are of what is left, and tell a direction, which is followed as far as brings the waves nearest.
        sums, light = torch.zeros_like(probe), torch.zeros_like(probe[0].real)
        for part in blocks:
            there = model.moved(probe, part)
            waves = self._near[part]
            if model.moves:
                waves = waves - model.exit_waves(object, there, part)
            found = model.overlap(waves, object, there, part)
            sums += found.to_probe
            light += found.exposure
        if not model.moves:
            return self._quotient(sums, light, probe)
        along = self._quotient(sums, light, torch.zeros_like(sums))
        reach = sums.real.new_zeros((), dtype=torch.float64)
        for part in blocks:
            waves = torch.view_as_real(model.exit_waves(object, model.moved(along, part), part))
            reach += waves.square().sum(dtype=torch.float64)
        return probe + along * (torch.vdot(along.flatten(), sums.flatten()).real / reach.clamp_min(1e-300))

    def _quotient(self, sums: Tensor, light: Tensor, before: Tensor) -> Tensor:
        floor = self.FLOOR * light.max()
        return torch.where(light > floor, sums / light.clamp_min(floor), before)

    def carry(self, change: Callable[[Tensor], Tensor]) -> None:
        """As :meth:`Engine.carry`; during the overlap projection also for the waves that it works on."""
        if self._near is not None:
            self._near = change(self._near).contiguous()
            self._far = fft(self._near)
        elif self._far is not None:
            self._far = fft(change(ifft(self._far)))

    def stand_at(self, positions: Tensor) -> None:
        """As :meth:`Engine.stand_at`; the waves that are kept move too, so that each stays with its probe in the
        patch."""
        before = self.model.shift
        super().stand_at(positions)
        # A wave stays with its probe, which moves within the patch by what the patch does not: a pixel where the whole
        # part of a position changes.
        shift = self.model.shift - before
        if self._far is not None and bool(shift.any()):
            q = torch.fft.fftfreq(self.model.side, dtype=shift.dtype)
            angle = -2 * torch.pi * shift.unsqueeze(-1) * q
            lines = torch.polar(torch.ones_like(angle), angle)
            self._far = self._far * lines[:, 0, None, :, None] * lines[:, 1, None, None, :]
            if self._near is not None:
                self._near = ifft(self._far)

    def snapshot(self) -> dict[str, Any]:
        """As :meth:`Engine.snapshot`, with the waves of all patterns, in Fourier space."""
        return {**super().snapshot(), "waves": self._far}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        super().restore(snapshot)
        self._far, self._near = snapshot["waves"], None
