"""The ptychographical iterative engine: ePIE and rPIE."""

from __future__ import annotations

import torch
from torch import Tensor

from sem.ptycho.engine import Engine, fft, ifft
from sem.ptycho.scan import Scan


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
            far = fft(there * patch)
            near, off = self.project(far, j)
            squares += off.sum(dtype=torch.float64)
            chi = ifft(near - far)
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
