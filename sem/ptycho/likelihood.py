"""Maximum likelihood by torch's optimisers on the exact gradients of the forward model."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sem.ops import PtychographicLoss, ptychographic_loss
from sem.ops.boundary import choice, count
from sem.ops.far_residual import LOSSES
from sem.ptycho.engine import Engine
from sem.ptycho.scan import Scan


class MaximumLikelihood(Engine):
    """The losses of :func:`sem.ops.ptychographic_loss` by an optimiser of torch's, in mini-batches.

    Args:
        kind: ``amplitude``, ``poisson``, ``intensity`` or ``amplitude_mae``.
        optimizer: makes one from parameter groups; None: Adam.
        rate: of the object, whose entries are of size 1; falls to 0 along a cosine over ``sweeps_planned``.
        probe_rate: of the probe, relative to its root mean square times ``rate``.
        batch: patterns of a step.
        Others: :class:`Engine`. complex64 alone.
    """

    def __init__(
        self,
        scan: Scan,
        probe: Tensor,
        object: Tensor | None = None,
        *,
        kind: str = "amplitude",
        optimizer: Callable[[list[dict]], torch.optim.Optimizer] | None = None,
        rate: float = 0.1,
        probe_rate: float = 1.0,
        sweeps_planned: int = 12,
        batch: int = 32,
        probe_from: int | None = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed)
        if probe.dtype != torch.complex64:
            raise TypeError(f"probe: expected complex64, got {probe.dtype}")
        self.kind = choice("kind", kind, LOSSES)
        self.batch = count("batch", batch, least=1)
        self.sweeps_planned = count("sweeps_planned", sweeps_planned, least=1)
        # of amplitude_mae: the same for every batch
        self.scale = float(self.data[self.valid].mean().nan_to_num()) * scan.side**2 or 1.0
        # both parameters in units in which their entries are of size 1
        self.unit = float(self.state.probe.abs().square().mean().sqrt())
        self.parameters: list[Tensor] = [
            self.state.object.clone().requires_grad_(),
            (self.state.probe / self.unit).requires_grad_(),
        ]
        self.rates = [rate, rate * probe_rate]
        groups = [{"params": [p], "lr": r} for p, r in zip(self.parameters, self.rates, strict=True)]
        self.optimizer = torch.optim.Adam(groups) if optimizer is None else optimizer(groups)

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        scan, steps = self.scan, math.ceil(len(self.scan) / self.batch)
        order = torch.randperm(len(scan), generator=self.generator)
        first = len(self.state.reports) * steps
        for k, part in enumerate(order.split(self.batch)):
            share = min((first + k) / (self.sweeps_planned * steps), 1.0)
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
            self.parameters[1].requires_grad_(moves)
            self.optimizer.zero_grad()
            with torch.enable_grad():
                found = self._loss(self.parameters[0], self.parameters[1] * self.unit, part, self.kind, self.weight)
                (found.total / len(part)).backward()
            self.optimizer.step()
        object = self.parameters[0].detach().clone()
        if moves:
            probe = (self.parameters[1] * self.unit).detach()
        with torch.no_grad():
            found = self._loss(object, probe, slice(None), "amplitude", self.valid.to(self.data.dtype))
        return object, probe, 2 * float(found.loss.sum(dtype=torch.float64))

    def _loss(
        self, object: Tensor, probe: Tensor, part: Tensor | slice, kind: str, weight: Tensor | None
    ) -> PtychographicLoss:
        return ptychographic_loss(
            object,
            probe,
            self.positions[part],
            self.data[part],
            weight=weight if weight is None or weight.dim() == 2 else weight[part],
            background=self.background,
            kind=kind,
            scale=self.scale,
            subpixel="fourier" if self.moves else "nearest",
        )
