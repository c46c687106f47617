"""How iterative solves report what happened, per system."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import torch
from torch import Tensor

OnFailure = Literal["ignore", "warn", "raise"]
ON_FAILURE = ("ignore", "warn", "raise")


class SolveStatus(IntEnum):
    """How the solve of one system ended."""

    CONVERGED = 0
    MAX_ITER = 1
    STAGNATED = 2
    NONFINITE = 3
    INDEFINITE = 4
    BREAKDOWN = 5


_REMEDY = {
    SolveStatus.MAX_ITER: "reached max_iter; raise max_iter, loosen the tolerance or give a better preconditioner",
    SolveStatus.STAGNATED: "cannot reach the tolerance in this precision; loosen it",
    SolveStatus.NONFINITE: "hold NaN or Inf (in the input, or by overflow of the operator); check the input",
    SolveStatus.INDEFINITE: "met a direction of non-positive curvature; the operator is not positive definite",
    SolveStatus.BREAKDOWN: "broke down: the preconditioner is not positive definite",
}


_REPORT = "_sem_report"  # attribute of a solve's status: a weak reference to the report made of it


class SolveError(RuntimeError):
    """Some systems were not solved, and ``on_failure='raise'`` was asked for."""


@dataclass
class SolveInfo:
    """Report of a solve, one entry per system, on the device of the input (reading it waits for the device).

    Attributes:
        status: int32, values of :class:`SolveStatus`.
        iterations: int32.
        residual: float, the true relative residual of the returned solution, at most ``tol`` where that has converged;
            where it is far below, an upper bound but for float32's rounding. NaN for non-finite systems.
        adjoint: report of the backward solve, of the same shape, once it has run; None before, and where torch compiles
            or transforms the operator.
    """

    status: Tensor
    iterations: Tensor
    residual: Tensor
    adjoint: SolveInfo | None = field(default=None, repr=False)

    @property
    def converged(self) -> Tensor:
        """Boolean, per system."""
        return self.status == SolveStatus.CONVERGED

    def message(self) -> str:
        """One line: how many systems failed, how, and what to do about it."""
        total = self.status.numel()
        parts = []
        for status, remedy in _REMEDY.items():
            failed = int((self.status == status).sum())
            if failed:
                parts.append(f"{failed} of {total} systems {remedy}")
        if not parts:
            return f"all {total} systems converged"
        finite = self.residual[torch.isfinite(self.residual)]
        worst = f" (worst relative residual {float(finite.max()):.2e})" if finite.numel() else ""
        return "; ".join(parts) + worst


def act_on_failure(operator: str, info: SolveInfo, on_failure: str) -> None:
    """Warn or raise if any system failed; ``'ignore'`` does not even look, so it costs no device wait."""
    if on_failure == "ignore" or bool(info.converged.all()):
        return
    text = f"{operator}: {info.message()}"
    if on_failure == "raise":
        raise SolveError(text)
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def expect_adjoint(ctx: Any, report: Sequence[Tensor]) -> None:
    """In the forward of an operator whose backward solves too: whom to tell how that went."""
    ctx.mark_non_differentiable(*report)
    ctx.status = report[0]


def act_on_adjoint(operator: str, ctx: Any, report: Sequence[Tensor]) -> None:
    """Give the caller's :class:`SolveInfo`, if there still is one, that of the adjoint, and :func:`act_on_failure`."""
    status, iterations, residual = report
    told = getattr(ctx.status, _REPORT, None)
    info = None if told is None else told()
    if info is not None:
        shape = info.status.shape
        info.adjoint = SolveInfo(status.reshape(shape), iterations.reshape(shape), residual.reshape(shape))
    act_on_failure(f"{operator} (adjoint)", SolveInfo(status, iterations, residual), ctx.on_failure)


def solution(
    name: str,
    operator: Any,
    args: tuple[Any, ...],
    restore: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    on_failure: str,
    return_info: bool,
) -> Any:
    """What a solving operator gives its caller: the solution in the caller's form, and the report if asked for.

    ``operator(*args)`` gives solution, status, iterations and residual of rows that come in ``shape``.
    """
    if on_failure == "ignore" and not return_info:
        return restore(operator.first(*args))
    out, *report = operator(*args)
    status, iterations, residual = (part.reshape(shape) for part in report)
    info = SolveInfo(status, iterations, residual)
    if not torch.compiler.is_compiling():
        setattr(report[0], _REPORT, weakref.ref(info))
    act_on_failure(name, info, on_failure)
    return (restore(out), info) if return_info else restore(out)
