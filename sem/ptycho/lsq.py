"""LSQ-ML: directions of object and probe from mini-batches, and for each pattern the steps that fit it best."""

from __future__ import annotations

import torch
from torch import Tensor

from sem.ops import Patches, overlap_add
from sem.ptycho.engine import Engine, fft, ifft
from sem.ptycho.scan import Scan


class LSQML(Engine):
    """With ``chi_j`` as :class:`PIE` has it, the directions of a batch are::

        dO = sum_j conj(P) chi_j / (sum_j |P|^2 + d max),    dP = sum_j conj(O) chi_j / (sum_j |O|^2 + d max)

    and the steps along them, for each pattern, minimise ``||chi_j - a dO P - b dP O||``: a real system of two
    equations. A batch takes their mean, weighted by ``||dO P||^2``.

    Args:
        batch: patterns of a step. damping: ``d``. Others: :class:`Engine`. complex64 alone.
    """

    RIDGE = 1e-6  # of the system's trace

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
    ) -> None:
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed)
        if batch < 1:
            raise ValueError(f"batch: expected at least 1, got {batch}")
        if not damping > 0:
            raise ValueError(f"damping: expected a number > 0, got {damping}")
        self.batch, self.damping = batch, damping

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        squares = torch.zeros((), dtype=torch.float64)
        corners = self.scan.corners
        for part in torch.randperm(len(self.scan), generator=self.generator).split(self.batch):
            part = part.sort().values
            patches = Patches(corners[part], self.scan.side, object.shape)
            there = self.moved(probe, part)
            patch = self.patches(object, part.tolist())
            far = fft(there * patch)
            near, off = self.project(far, part)
            squares += off.sum(dtype=torch.float64)
            chi = ifft(near - far)
            sums = overlap_add(chi, object, there, patches)
            along_object = sums.to_object / (sums.illumination + self.damping * sums.illumination.max())
            a = self.patches(along_object, part.tolist()) * there
            if not moves:
                object = object + _mean_step(_inner(a, chi) / _inner(a, a).clamp_min(1e-30), a) * along_object
                continue
            to_probe = self.moved(sums.to_probe, part, back=True).sum(0) if self.moves else sums.to_probe
            along_probe = to_probe / (sums.exposure + self.damping * sums.exposure.max())
            b = self.moved(along_probe, part) * patch
            aa, ab, bb = _inner(a, a), _inner(a, b), _inner(b, b)
            system = torch.stack([torch.stack([aa, ab], 1), torch.stack([ab, bb], 1)], 1)
            ridge = self.RIDGE * (aa + bb).view(-1, 1, 1) * torch.eye(2, dtype=system.dtype)
            right = torch.stack([_inner(a, chi), _inner(b, chi)], 1)
            steps = torch.linalg.solve(system + ridge.clamp_min(1e-30), right)
            object = object + _mean_step(steps[:, 0], a) * along_object
            probe = probe + _mean_step(steps[:, 1], a) * along_probe
        return object, probe, float(squares)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` of every pattern, float64."""
    return (a.conj() * b).real.flatten(1).sum(1, dtype=torch.float64)


def _mean_step(steps: Tensor, a: Tensor) -> float:
    weight = _inner(a, a)
    return float((weight * steps).sum() / weight.sum().clamp_min(1e-30))
