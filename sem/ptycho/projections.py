"""Difference map and RAAR."""

from __future__ import annotations

import torch
from torch import Tensor

from sem.ptycho.engine import Engine, fft, ifft
from sem.ptycho.scan import Scan


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
        squares = float(self.project(fft(m), everything)[1].sum(dtype=torch.float64))
        measured = ifft(self.project(fft(2 * m - self.waves), everything)[0])
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
