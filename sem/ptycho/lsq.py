"""LSQ-ML: directions of object and probe from mini-batches, and for each pattern the steps that fit it best."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from sem.ops.boundary import count
from sem.ptycho.engine import Constraint, Engine
from sem.ptycho.model import fft, ifft
from sem.ptycho.scan import Scan


class LSQML(Engine):
    """With ``chi_j`` as :class:`PIE` has it, the directions of a batch are::

        dO = sum_j conj(P) chi_j / (sum_j |P|^2 + d max),    dP = sum_j conj(O) chi_j / (sum_j |O|^2 + d max)

    and the steps along them, for each pattern, minimise ``||chi_j - a dO P - b dP O||``: a real system of two
    equations. A batch takes their mean, weighted by ``||dO P||^2``.

    Args:
        batch: patterns of a step. damping: ``d``. Others: :class:`Engine`.

    Raises:
        ValueError: a setting out of its range, or an object and a probe that do not fit the scan.

    Example:
        >>> from sem.ptycho import disk_probe, lines_object, raster_scan, simulate
        >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 5))
        >>> reports = LSQML(scan, probe).run(5).reports
        >>> reports[-1].loss < reports[0].loss
        True
    """

    RIDGE = 1e-6  # of the system's trace
    SETTINGS: ClassVar[tuple[str, ...]] = (*Engine.SETTINGS, "batch", "damping")

    def __init__(
        self,
        scan: Scan,
        probe: Tensor,
        object: Tensor | None = None,
        *,
        batch: int = 44,
        damping: float = 0.1,
        probe_from: int | None = 2,
        seed: int = 0,
        constraints: Iterable[Constraint] = (),
    ) -> None:
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed, constraints=constraints)
        if not damping > 0:
            raise ValueError(f"damping: expected a number > 0, got {damping}")
        self.batch, self.damping = count("batch", batch, least=1), damping

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        """As :meth:`Engine.sweep`: every pattern once, in random batches."""
        model = self.model
        for part in torch.randperm(len(self.scan), generator=self.generator).split(self.batch):
            part = part.sort().values
            there = model.moved(probe, part)
            chi = ifft(model.residual(fft(model.exit_waves(object, there, part)), part)).neg_()
            sums = model.overlap(chi, object, there, part, to_probe=moves)
            along_object = sums.to_object / (sums.illumination + self.damping * sums.illumination.max())
            a = model.exit_waves(along_object, there, part)
            aa, ac = _inner(a, a), _inner(a, chi)
            if not moves:
                object = object + _mean_step(ac / aa.clamp_min(1e-30), aa) * along_object
                continue
            along_probe = sums.to_probe / (sums.exposure + self.damping * sums.exposure.max())
            b = model.exit_waves(object, model.moved(along_probe, part), part)
            ab, bb, bc = _inner(a, b), _inner(b, b), _inner(b, chi)
            ridge = (self.RIDGE * (aa + bb)).clamp_min(1e-30)
            aa_, bb_ = aa + ridge, bb + ridge
            determinant = aa_ * bb_ - ab * ab
            object = object + _mean_step((bb_ * ac - ab * bc) / determinant, aa) * along_object
            probe = probe + _mean_step((aa_ * bc - ab * ac) / determinant, bb) * along_probe
        return *self.constrain(object, probe), model.squares()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` of every pattern, float64."""
    return torch.linalg.vecdot(*(torch.view_as_real(wave).flatten(1) for wave in (a, b))).double()


def _mean_step(steps: Tensor, weight: Tensor) -> float:
    return float((weight * steps).sum() / weight.sum().clamp_min(1e-30))
