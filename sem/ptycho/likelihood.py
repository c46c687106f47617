"""Maximum likelihood by torch's optimisers on the exact gradients of the forward model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sem.ops import PtychographicLoss, ptychographic_loss
from sem.ops.boundary import choice, count
from sem.ops.far_residual import LOSSES
from sem.ptycho.constraints import Penalty
from sem.ptycho.engine import Constraint, Engine
from sem.ptycho.model import fft, ifft
from sem.ptycho.scan import Scan


class MaximumLikelihood(Engine):
    """The losses of :func:`sem.ops.ptychographic_loss` by an optimiser of torch's, in mini-batches.

    The rates fall along a cosine over ``sweeps_planned``, to a tenth, and stay there: sweeps beyond the plan go on
    from what is there, and never stir it up again. Those of L-BFGS, which searches along lines, stay as they are.

    Args:
        kind: ``amplitude``, ``poisson``, ``intensity`` or ``amplitude_mae``.
        optimizer: makes one from parameter groups; None: Adam. :func:`lbfgs` is another.
        rate: of the object, whose entries are of size 1.
        probe_rate: of the probe, relative to its root mean square times ``rate``.
        position_rate: of the positions, in pixels; 0: they stay. Their gradients cost twice the time of the others.
        positions_from: the sweep at which they begin to move.
        batch: patterns of a step; None: 32, or all for L-BFGS, which compares losses of the same patterns.
        constraints: as :class:`Engine` takes them, and terms of the loss (:class:`sem.ptycho.Penalty`).
        Others: :class:`Engine`. complex64 alone.

    Raises:
        ValueError: a setting out of its range, or an object and a probe that do not fit the scan.
        TypeError: the probe is not complex64.

    Example:
        >>> from sem.ptycho import disk_probe, lines_object, raster_scan, simulate
        >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 5))
        >>> reports = MaximumLikelihood(scan, probe, kind="poisson", sweeps_planned=5).run(5).reports
        >>> reports[-1].loss < reports[0].loss
        True
    """

    LEAST = 0.1
    """Of the rates, at the end of the plan."""
    SETTINGS: ClassVar[tuple[str, ...]] = (
        *Engine.SETTINGS, "kind", "optimizer_name", "rates", "sweeps_planned", "batch", "positions_from"
    )  # fmt: skip

    def __init__(
        self,
        scan: Scan,
        probe: Tensor,
        object: Tensor | None = None,
        *,
        kind: str = "amplitude",
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None,
        rate: float = 0.1,
        probe_rate: float = 1.0,
        position_rate: float = 0.0,
        positions_from: int = 5,
        sweeps_planned: int = 12,
        batch: int | None = None,
        probe_from: int | None = 2,
        seed: int = 0,
        constraints: Iterable[Constraint | Penalty] = (),
    ) -> None:
        given = tuple(constraints)
        self.penalties = tuple(term for term in given if isinstance(term, Penalty))
        rest = [constraint for constraint in given if not isinstance(constraint, Penalty)]
        super().__init__(scan, probe, object, probe_from=probe_from, seed=seed, constraints=rest)
        if probe.dtype != torch.complex64:
            raise TypeError(f"probe: expected complex64, got {probe.dtype}")
        self.kind = choice("kind", kind, LOSSES)
        self.sweeps_planned = count("sweeps_planned", sweeps_planned, least=1)
        self.positions_from = positions_from
        data, masks = self.model.data, self.model.masks
        # of amplitude_mae: the same for every batch
        valid = data if not masks.numel() else data[masks.expand_as(data) > 0]
        self.scale = float(valid.mean().nan_to_num()) * scan.side**2 or 1.0
        # parameters in units in which their entries are of size 1
        self.unit = float(self.state.probe.abs().square().mean().sqrt())
        self.parameters: list[Tensor] = [self.state.object.clone(), self.state.probe / self.unit]
        rates = [rate, rate * probe_rate]
        if position_rate:
            self.parameters.append(scan.positions.float().clone())
            rates.append(position_rate)
        groups = [{"params": [p.requires_grad_()], "lr": r} for p, r in zip(self.parameters, rates, strict=True)]
        self.optimizer = torch.optim.Adam(groups) if optimizer is None else optimizer(groups)
        self.optimizer_name = type(self.optimizer).__name__
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._searches = isinstance(self.optimizer, torch.optim.LBFGS)
        weight = self.model.weight
        # whether what it minimises is what is reported: all weights 0 or 1, one step a batch
        plain = weight is None or bool(((weight == 0) | (weight == 1)).all())
        self._tells = self.kind == "amplitude" and plain and not self._searches
        self.batch = (len(scan) if self._searches else 32) if batch is None else count("batch", batch, least=1)
        if self._searches and self.batch < len(scan):
            raise ValueError(
                f"batch: expected all {len(scan)} patterns, or None, since L-BFGS compares their loss from step to "
                f"step, got {batch}"
            )

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        """As :meth:`Engine.sweep`: one step of the optimizer for each random batch. Positions follow where they are
        among its parameters."""
        steps = math.ceil(len(self.scan) / self.batch)
        order = torch.randperm(len(self.scan), generator=self.generator)
        number = len(self.state.reports)
        self.parameters[1].requires_grad_(moves)
        positions = self.parameters[2] if len(self.parameters) > 2 else None
        if positions is not None:
            positions.requires_grad_(number >= self.positions_from)
        for k, part in enumerate(order.split(self.batch)):
            share = min((number * steps + k) / (self.sweeps_planned * steps), 1.0)
            height = self.LEAST + (1 - self.LEAST) * 0.5 * (1 + math.cos(math.pi * share))
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate if self._searches else rate * height
            self.optimizer.step(partial(self._objective, part))  # type: ignore[arg-type]  # tensors are numbers to it
            if positions is not None and positions.requires_grad:
                self._hold_positions(positions)
        if positions is not None and positions.requires_grad:
            self.stand_at(positions.detach().clone())
        object = self.parameters[0].detach().clone()
        if moves:
            probe = (self.parameters[1] * self.unit).detach()
        object, probe = self._constrained(object, probe)
        if not self._tells:
            with torch.no_grad():
                masks = self.model.masks if self.model.masks.numel() else None
                self._note(
                    slice(None), self._loss(object, probe, self.model.positions, slice(None), "amplitude", masks)
                )
        return object, probe, self.model.squares()

    def _objective(self, part: Tensor) -> Tensor:
        """The mean of the patterns' losses and what penalties add, and its gradients to the parameters."""
        self.optimizer.zero_grad()
        positions = self.parameters[2] if len(self.parameters) > 2 else None
        moved = positions is not None and positions.requires_grad
        mean = self._by_graph(part) if moved else self._by_hand(part)
        if self.penalties:
            mean = mean + self._penalised()
        return mean

    @torch.no_grad()
    def _by_hand(self, part: Tensor) -> Tensor:
        """Without a graph, in blocks: what :func:`sem.ops.ptychographic_loss` does, less what a graph costs."""
        model, wanted = self.model, self.parameters[1].requires_grad
        object, probe = self.parameters[0].detach(), self.parameters[1].detach() * self.unit
        weight = self.model.weight
        to_object, to_probe = torch.zeros_like(object), torch.zeros_like(probe)
        for some in part.split(model.block(len(probe))):
            there = model.moved(probe, some)
            far = fft(model.exit_waves(object, there, some))
            chi = ifft(model.residual(far, some, self.kind, weight, self.scale), out=far)
            sums = model.overlap(chi, object, there, some, to_probe=wanted)
            to_object += sums.to_object
            if wanted:
                to_probe += sums.to_probe
        self.parameters[0].grad = to_object.div_(len(part))
        if wanted:
            self.parameters[1].grad = to_probe.mul_(self.unit / len(part))
        return model.loss[part].sum() / len(part)

    @torch.enable_grad()
    def _by_graph(self, part: Tensor) -> Tensor:
        """With gradients to positions."""
        object, probe = self.parameters[0], self.parameters[1] * self.unit
        found = self._loss(object, probe, self.parameters[2], part, self.kind, self.model.weight)
        self._note(part, found)
        mean = found.total / len(part)
        mean.backward()
        return mean.detach()

    @torch.enable_grad()
    def _penalised(self) -> Tensor:
        object, probe = self.parameters[0], self.parameters[1] * self.unit
        added = torch.stack([penalty.weight * penalty.function(object, probe) for penalty in self.penalties]).sum()
        added.backward()
        return added.detach()

    def _note(self, part: Tensor | slice, found: PtychographicLoss) -> None:
        model = self.model
        model.loss[part], model.misfit[part], model.status[part] = found.loss, found.misfit, found.status

    def _constrained(self, object: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        if not self.constraints:
            return object, probe
        object, probe = self.constrain(object, probe)
        with torch.no_grad():
            self.parameters[0].copy_(object)
            self.parameters[1].copy_(probe / self.unit)
        return object, probe

    def _hold_positions(self, positions: Tensor) -> None:
        """Without the drift of all, and inside the object."""
        most = torch.tensor(self.state.object.shape) - self.scan.side
        with torch.no_grad():
            positions -= (positions - self.model.positions).mean(0)
            torch.minimum(positions.clamp_min_(0), most, out=positions)

    def _loss(
        self, object: Tensor, probe: Tensor, positions: Tensor, part: Tensor | slice, kind: str, weight: Tensor | None
    ) -> PtychographicLoss:
        return ptychographic_loss(
            object,
            probe,
            positions[part],
            self.model.data[part],
            weight=weight if weight is None or weight.dim() == 2 else weight[part],
            background=self.model.background,
            kind=kind,
            scale=self.scale,
            subpixel="fourier" if self.model.moves or positions.requires_grad else "nearest",
        )

    def stand_at(self, positions: Tensor) -> None:
        """As :meth:`Engine.stand_at`, also for the positions that the optimizer moves, if it moves any."""
        super().stand_at(positions)
        if len(self.parameters) > 2:
            with torch.no_grad():
                self.parameters[2].copy_(self.model.positions)

    def snapshot(self) -> dict[str, Any]:
        """As :meth:`Engine.snapshot`, with copies of the parameters and the optimizer's state: a step writes to
        them."""
        parameters = [parameter.detach().clone() for parameter in self.parameters]
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        return {**super().snapshot(), "parameters": parameters, "optimizer": optimizer}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        super().restore(snapshot)
        with torch.no_grad():
            for ours, theirs in zip(self.parameters, snapshot["parameters"], strict=True):
                ours.copy_(theirs)
        self.optimizer.load_state_dict(snapshot["optimizer"])


def lbfgs(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """torch's L-BFGS with a line search, for :class:`MaximumLikelihood`: a step, which is a sweep, has four iterations,
    each of which takes all patterns once or more."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    return torch.optim.LBFGS(parameters, max_iter=4, history_size=10, line_search_fn="strong_wolfe")
