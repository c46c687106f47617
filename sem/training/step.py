"""The one training step: gradient accumulation, clipping and the non-finite guard.

Whatever drives the training calls this function, so that every driver takes the same step. It knows a model,
an objective and an optimizer; what the batches hold is the objective's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sem.activations import flat, gradient_statistics
from sem.training.clipping import NO_CLIPPING, Clipping


class Objective(Protocol):
    """What a training minimises.

    Calling it gives 0-d tensors (or numbers) for one micro-batch: ``"loss"``, a mean, is what is
    differentiated; over the micro-batches of a step, names ending in ``_sum`` are added and all others
    averaged. ``items_sum``, if there, counts what ``unit`` names and gives the throughput.
    """

    unit: str

    def __call__(self, model: nn.Module, batch: Any, diagnostics: Any) -> Mapping[str, Any]: ...

    def report(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Figures to show and log, from the accumulated ones."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An objective with something that a checkpoint keeps and a run that goes on is held against."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors for the checkpoint, the same in every process."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; a ValueError where that is not possible."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Attributes:
        totals: the objective's figures accumulated over the micro-batches.
        grad_norm: 2-norm of the whole gradient before clipping.
        clipped: what clipping did to it, see :class:`sem.training.clipping.Clipping`; empty without clipping and in a
            skipped step.
        problem: why the step was skipped, or None when the parameters were updated.
        gradients: ``layer/statistic`` of the groups that were asked for, see
            :func:`sem.activations.gradient_statistics`.
    """

    totals: dict[str, float]
    grad_norm: float
    clipped: dict[str, float]
    problem: str | None
    gradients: dict[str, float] = field(default_factory=dict)

    @property
    def skipped(self) -> bool:
        """Whether the parameters are what they were."""
        return self.problem is not None


def training_step(
    model: nn.Module,
    objective: Objective,
    micro_batches: Sequence[Any],
    optimizer: torch.optim.Optimizer,
    *,
    clipping: Clipping = NO_CLIPPING,
    diagnostics: Any = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    accumulating: Callable[[], AbstractContextManager[Any]] = nullcontext,
    fetch: Callable[[Mapping[str, Tensor | float]], dict[str, float]] | None = None,
    groups: Mapping[str, Sequence[nn.Parameter]] | None = None,
) -> StepResult:
    """Accumulate the gradient over ``micro_batches``, clip it and update the parameters.

    The gradient is that of the mean of the micro-batches' losses; with equally large micro-batches this is
    the gradient of the whole batch. A loss or a gradient that is not finite leaves parameters and optimizer
    state as they were. The figures reach the host once per step, after the last backward pass.

    Args:
        clipping: bounds the gradient that the optimizer sees.
        diagnostics: handed to the objective with every micro-batch.
        autocast: makes the context the forward passes run in.
        backward: differentiates a loss; a driver with a backward of its own hands it in.
        accumulating: makes the context of every micro-batch but the last, where gradients need not be reduced
            between processes yet.
        fetch: the accumulated figures as floats, :func:`to_floats` by default; with several processes it also
            reduces them, so that all decide alike.
        groups: parameters by the name of their group, whose gradients' statistics are wanted; they change no bit of
            the step, and cost a copy of the gradients where there is clipping.

    Raises:
        ValueError: there is no micro-batch, or the objective returned no ``"loss"``.
    """
    if not micro_batches:
        raise ValueError("micro_batches: expected at least one, got none")
    optimizer.zero_grad(set_to_none=True)
    share = 1.0 / len(micro_batches)
    totals: dict[str, Tensor | float] = {}
    for index, batch in enumerate(micro_batches, start=1):
        with accumulating() if index < len(micro_batches) else nullcontext():
            with autocast():
                figures = objective(model, batch, diagnostics)
            if "loss" not in figures:
                raise ValueError(f"objective: expected a 'loss' among its figures, got {sorted(figures)}")
            backward(figures["loss"] * share)
        accumulate(totals, figures, share)

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    clipped: dict[str, Tensor] = {}

    def clip() -> None:
        clipped.update(clipping.clip(parameters, norm))

    gradients: dict[str, float] = {}
    if groups is None:
        clip()
    elif clipping.active:
        gradients = flat(gradient_statistics(groups, clip))
    else:
        gradients = flat(gradient_statistics(groups))
    figures = (fetch or to_floats)({**totals, "grad_norm": norm, **clipped})
    grad_norm = figures.pop("grad_norm")
    clipped_figures = {name: figures.pop(name) for name in clipped} | clipping.told_by_norm(grad_norm)
    problem = _problem(figures["loss"], grad_norm)
    if problem is None:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(figures, grad_norm, clipped_figures if problem is None else {}, problem, gradients)


def accumulate(totals: dict[str, Tensor | float], figures: Mapping[str, Tensor | float], share: float) -> None:
    """Add one micro-batch's figures to ``totals``: sums as they are, means weighted by ``share``.

    Tensors stay where they are; nothing waits for the device.
    """
    for name, value in figures.items():
        value = value.detach() if isinstance(value, Tensor) else float(value)
        value = value if name.endswith("_sum") else value * share
        totals[name] = totals[name] + value if name in totals else value


def to_floats(figures: Mapping[str, Tensor | float]) -> dict[str, float]:
    """All figures as Python floats, with one transfer from the device."""
    tensors = {name: value.float() for name, value in figures.items() if isinstance(value, Tensor)}
    fetched = torch.stack(list(tensors.values())).tolist() if tensors else []
    return {**figures, **dict(zip(tensors, fetched, strict=True))}


def _problem(loss: float, grad_norm: float) -> str | None:
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(grad_norm):
        return f"the gradient's norm is {grad_norm}"
    return None
