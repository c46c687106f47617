"""The ptychographical iterative engine: ePIE, rPIE, mPIE, pattern by pattern or in mini-batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sem.ops.boundary import count
from sem.ptycho.engine import Constraint, Engine
from sem.ptycho.model import fft, ifft
from sem.ptycho.scan import Scan


class PIE(Engine):
    """The ptychographical iterative engine, one pattern after the other in random order: ePIE, and rPIE.

    With ``chi = F^-1[Psi' - Psi]`` and the patch of the object before the update in both lines::

        O   += object_step sum_m conj(P_m) chi_m / ((1 - alpha) |P|^2 + alpha max |P|^2)
        P_m += probe_step conj(O) chi_m          / ((1 - beta)  |O|^2 + beta  max |O|^2)

    A mini-batch puts sums over its patterns in place of both numerators, and of ``|P|^2`` and ``|O|^2``. Momentum
    (mPIE) keeps a velocity ``v`` of the object: every ``period`` patterns, with ``D`` its change since, ``v = friction
    v + D`` and ``O += momentum v``.

    Args:
        alpha, beta: above 0, at most 1; both 1 is ePIE, an ``alpha`` of 0.05 to 0.3 a usual rPIE.
        batch: patterns of a step.
        momentum: 0 is none; at least 0, as ``friction``, which is below 1. An mPIE has 0.3 and 0.7, say.
        period: patterns between two steps of the velocity, rounded up to whole batches.
        Others: :class:`Engine`.
        order: the order of every sweep's patterns, int64 ``[J]``; None: random.

    Raises:
        ValueError: a setting out of its range, or an object and a probe that do not fit the scan.

    Example:
        >>> from sem.ptycho import disk_probe, lines_object, raster_scan, simulate
        >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 5))
        >>> reports = PIE(scan, probe, alpha=0.1).run(5).reports
        >>> reports[-1].loss < reports[0].loss
        True
    """

    SETTINGS: ClassVar[tuple[str, ...]] = (
        *Engine.SETTINGS, "alpha", "beta", "object_step", "probe_step", "batch", "momentum", "friction", "period"
    )  # fmt: skip

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
        batch: int = 1,
        momentum: float = 0.0,
        friction: float = 0.7,
        period: int = 50,
        probe_from: int | None = 2,
        seed: int = 0,
        order: Tensor | None = None,
        constraints: Iterable[Constraint] = (),
    ) -> None:
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed, constraints=constraints)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 < value <= 1:
                raise ValueError(f"{name}: expected a number > 0, at most 1, got {value}")
        if not momentum >= 0:
            raise ValueError(f"momentum: expected a number >= 0, got {momentum}")
        if not 0 <= friction < 1:
            raise ValueError(f"friction: expected a number >= 0, below 1, got {friction}")
        self.alpha, self.beta, self.object_step, self.probe_step = alpha, beta, object_step, probe_step
        self.batch, self.period = count("batch", batch, least=1), count("period", period, least=1)
        self.momentum, self.friction = momentum, friction
        self.velocity = torch.zeros_like(self.state.object) if momentum else None
        self.order = order

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        """As :meth:`Engine.sweep`: every pattern once, in a random order unless ``order`` gives one."""
        order = torch.randperm(len(self.scan), generator=self.generator) if self.order is None else self.order
        steps = _Steps(self, object, probe, moves)
        for part in order.split(self.period if self.velocity is not None else len(order)):
            before = object if self.velocity is None else object.clone()
            if self.batch == 1:
                for j in part.tolist():
                    steps.pattern(j)
            else:
                for some in part.split(self.batch):
                    steps.batch(some.sort().values)
            if self.velocity is not None:
                self.velocity = self.friction * self.velocity + (object - before)
                object.add_(self.velocity, alpha=self.momentum)
        return *self.constrain(object, probe), self.model.squares()

    def snapshot(self) -> dict[str, Any]:
        """As :meth:`Engine.snapshot`, with the velocity where there is momentum."""
        own = {} if self.velocity is None else {"velocity": self.velocity}
        return {**super().snapshot(), **own}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        super().restore(snapshot)
        self.velocity = None if self.velocity is None else snapshot["velocity"]


class _Steps:
    """The steps of one sweep, in place of ``object`` and ``probe``, in memory that is taken once."""

    def __init__(self, engine: PIE, object: Tensor, probe: Tensor, moves: bool) -> None:
        self.engine, self.model, self.object, self.probe, self.moves = engine, engine.model, object, probe, moves
        self.waves, self.far = probe.new_empty(1, *probe.shape), probe.new_empty(1, *probe.shape)
        self.far_blocks, self.chi = torch.view_as_real(self.far), list(self.waves[0])
        self.stays = not (moves or self.model.moves)
        self.spectrum = None if moves else self.model.spectrum(probe)
        self.there = probe.unsqueeze(0)
        self.factor: list[Tensor] = []
        """What ``F^-1[Psi - Psi']`` is multiplied by in the object's step, mode by mode."""

    def pattern(self, j: int) -> None:
        model = self.model
        if model.moves:
            self.there = model.moved(self.probe, j, self.spectrum)
        patch = model.patch(self.object, j)
        torch.mul(self.there, patch, out=self.waves)
        fft(self.waves, out=self.far)
        model.residual_of(self.far_blocks, j)
        ifft(self.far, out=self.waves)
        if not (self.stays and self.factor):
            self.factor = self._factor(self.there[0])
        if self.moves:
            along = patch.conj_physical()
            along.mul_(self._weight((along * patch).real, self.engine.beta, -self.engine.probe_step))
            if model.moves:
                self.probe += model.moved_back(self.waves * along, j)
            else:
                self.probe.addcmul_(self.waves[0], along)
        for factor, chi in zip(self.factor, self.chi, strict=True):
            patch.addcmul_(factor, chi)

    def batch(self, part: Tensor) -> None:
        model, engine = self.model, self.engine
        there = model.moved(self.probe, part, self.spectrum)
        chi = ifft(model.residual(fft(model.exit_waves(self.object, there, part)), part))
        sums = model.overlap(chi, self.object, there, part, to_probe=self.moves)
        self.object += sums.to_object * self._weight(sums.illumination, engine.alpha, -engine.object_step)
        if self.moves:
            self.probe += sums.to_probe * self._weight(sums.exposure, engine.beta, -engine.probe_step)

    def _factor(self, probe: Tensor) -> list[Tensor]:
        conjugate = probe.conj_physical()
        power = (conjugate * probe).real  # from a product: torch's modulus takes four times as long
        weight = self._weight(
            power[0] if len(power) == 1 else power.sum(0), self.engine.alpha, -self.engine.object_step
        )
        return list(conjugate.mul_(weight))

    @staticmethod
    def _weight(power: Tensor, share: float, step: float) -> Tensor:
        """``step / ((1 - share) power + share max power)``, 0-d where ``share`` is 1."""
        most = power.max().clamp_min_(torch.finfo(power.dtype).tiny)
        if share < 1:
            most = torch.add(most.mul_(share), power, alpha=1 - share)
        return most.reciprocal_().mul_(step)
