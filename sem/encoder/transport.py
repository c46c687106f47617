"""Online entropic transport: a causal Sinkhorn iteration of tokens against a fixed set of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class TransportPlan(NamedTuple):
    """``plan [B, S, M]`` with rows that sum to 1; ``iterations`` and ``converged`` are per row, ``[B, S]``."""

    plan: Tensor
    iterations: Tensor
    converged: Tensor


class TransportState(NamedTuple):
    """What the rows seen so far leave to those that follow.

    ``loads [B, max_iter, M]``, float32: for each round of the iteration, the columns' sums over those rows. A frozen
    row is constant, so the rounds after the last that was needed all hold the same sums.
    ``lost``, of the same shape: what rounding took from ``loads``; without it the error would grow with the rows.
    ``rows [B]``, int64: how many rows there were.
    """

    loads: Tensor
    lost: Tensor
    rows: Tensor


def transport_start(batch: int, columns: int, max_iter: int, device: torch.device | None = None) -> TransportState:
    """The state before the first row of ``batch`` sequences."""
    loads = torch.zeros(batch, max_iter, columns, dtype=torch.float32, device=device)
    return TransportState(loads, torch.zeros_like(loads), torch.zeros(batch, dtype=torch.int64, device=device))


def online_transport(log_kernel: Tensor, prior_rows: float, tol: float, max_iter: int) -> TransportPlan:
    """Transport of each row onto ``M`` columns that balances the columns over the rows seen so far.

    With ``K = log_kernel``, the row potential is ``u_t = -LSE_m(K_tm + v_tm)`` and the column potential looks back
    only, ``v_tm = -log( (n0/M + sum_{s<=t} exp(K_sm + u_s)) M / (n0 + t + 1) )``; ``n0 = prior_rows`` uniform rows
    keep it calm at the start. The two alternate until ``u_t`` moves by at most ``tol``; a row is then frozen, so that
    a row's result depends on no later row and on no other sequence.

    The iteration runs on ``e^v`` and ``e^K`` with each row's largest ``K`` taken out, which is the log domain's
    stabilisation done once instead of at every step: the largest entry of a row is exactly 1, and the prior keeps every
    column potential within ``(n0 + t + 1) / n0`` of 1 from above, so no sum can vanish.

    Args:
        log_kernel: ``-cost / epsilon``, float32 ``[B, S, M]``.
        prior_rows: ``n0 > 0``.

    Gradients: exact, through the iterations.

    Returns:
        The plan, and how many rounds each row took; a row that did not settle in ``max_iter`` is ``~converged``.

    Example:
        >>> found = online_transport(torch.linspace(-1, 1, 80).view(2, 5, 8), prior_rows=16.0, tol=1e-3, max_iter=50)
        >>> bool(found.converged.all()), torch.allclose(found.plan.sum(-1), torch.ones(2, 5))
        (True, True)
    """
    return TransportPlan(*_OnlineTransport.apply(log_kernel, prior_rows, tol, max_iter))


def transport_kernel(log_kernel: Tensor) -> Tensor:
    """``e^K`` with each row's largest ``K`` taken out; no gradient goes through that."""
    return (log_kernel - log_kernel.detach().amax(-1, keepdim=True)).exp()


@torch.no_grad()
def continue_transport(
    kernel: Tensor, prior_rows: float, tol: float, state: TransportState
) -> tuple[Tensor, TransportState]:
    """The plan of :func:`online_transport` for rows behind those that left ``state``, and the state that these leave.

    A row gets what it would get in one call with all rows before it, but for rounding; the time does not depend on
    their number. There are no gradients.

    Args:
        kernel: :func:`transport_kernel` of ``log_kernel``, ``[B, S, M]``.
    """
    loads, lost, rows = state
    _, max_iter, columns = loads.shape
    seen = prior_rows + (rows.view(-1, 1, 1) + _row_numbers(kernel))

    def column_loads(added: Tensor, k: int) -> Tensor:
        return loads[:, k, None] + (added + lost[:, k, None]) + prior_rows / columns

    done = _iterate(kernel, seen, tol, max_iter, column_loads, False)
    added = torch.cat(done.added, 1)
    added = torch.cat([added, added[:, -1:].expand(-1, max_iter - added.shape[1], -1)], 1)
    added = added + lost
    # Kahan's sum: float64 would do as well, but not every device has it
    after = loads + added
    return done.plan(kernel).plan, TransportState(after, added - (after - loads), rows + kernel.shape[1])


def _row_numbers(kernel: Tensor) -> Tensor:
    """1 to S, ``[S, 1]``."""
    return torch.arange(1, kernel.shape[1] + 1, device=kernel.device, dtype=kernel.dtype).unsqueeze(-1)


class _Rounds(NamedTuple):
    """What the rounds went through: ``e^v`` before each and after the last, each ``e^u``, which rows were running, and
    what all these rows add to the columns, ``[B, 1, M]``. Unless all are kept, the last ``e^v`` is the only one."""

    columns: list[Tensor]
    rows: list[Tensor]
    running: list[Tensor]
    added: list[Tensor]
    iterations: Tensor
    converged: Tensor

    def plan(self, kernel: Tensor) -> TransportPlan:
        plan = kernel * self.columns[-1]
        return TransportPlan(plan / plan.sum(-1, keepdim=True), self.iterations, self.converged)


def _iterate(
    kernel: Tensor, seen: Tensor, tol: float, max_iter: int, column_loads: Callable[[Tensor, int], Tensor], keep: bool
) -> _Rounds:
    """The rounds. ``seen`` is the number of rows up to each one, the prior's included; ``column_loads`` puts the prior
    and the rows before these, as they were in round k, on top of what these rows add to the columns."""
    share = seen / kernel.shape[-1]
    columns = [torch.ones_like(kernel)]
    row = torch.zeros_like(kernel[..., :1])
    running = torch.ones_like(row, dtype=torch.bool)
    iterations = torch.zeros_like(running, dtype=torch.int32)
    rows, runs, added = [], [], []
    for k in range(max_iter):
        fresh = (kernel * columns[-1]).sum(-1, keepdim=True).reciprocal()
        settled = (fresh.detach().log() - row.detach().log()).abs() <= tol
        row = torch.where(running, fresh, row)
        rows.append(row)
        runs.append(running)
        iterations = iterations + running
        running = running & ~settled
        load = (kernel * row).cumsum(1)
        added.append(load.detach()[:, -1:].clone())
        if not bool(running.any()):
            break
        columns = [*(columns if keep else ()), share / column_loads(load, k)]
    # rows before these may have needed more rounds: the last round has their final sums
    columns = [*(columns[: len(rows)] if keep else ()), share / column_loads(load, max_iter - 1)]
    return _Rounds(columns, rows, runs, added, iterations.squeeze(-1), ~running.squeeze(-1))


class _OnlineTransport(Function):
    """The rounds on their own, without rows before; the backward goes through them once more, last to first."""

    @staticmethod
    def forward(
        ctx: Any, log_kernel: Tensor, prior_rows: float, tol: float, max_iter: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        kernel = transport_kernel(log_kernel)
        prior = prior_rows / kernel.shape[-1]
        seen = prior_rows + _row_numbers(kernel)
        done = _iterate(kernel, seen, tol, max_iter, lambda added, _: added + prior, ctx.needs_input_grad[0])
        ctx.rounds = len(done.rows)
        ctx.save_for_backward(kernel, kernel.shape[-1] / seen, *done.columns[1:], *done.rows, *done.running)
        result = done.plan(kernel)
        ctx.mark_non_differentiable(result.iterations, result.converged)
        return result.plan, result.iterations, result.converged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        kernel, inverse_share, *held = ctx.saved_tensors
        columns, rows, running = (held[k * ctx.rounds : (k + 1) * ctx.rounds] for k in range(3))
        weighted = kernel * columns[-1]
        total = weighted.sum(-1, keepdim=True)
        mean = (grad * weighted).sum(-1, keepdim=True) / total
        grad_weighted = (grad - mean).div_(total)
        grad_kernel = grad_weighted * columns[-1]
        grad_column = grad_weighted.mul_(kernel)
        grad_row = torch.zeros_like(total)
        for k in reversed(range(ctx.rounds)):
            # column = share / load, and a load is the sum over the rows up to its own
            grad_load = grad_column.mul_(columns[k]).mul_(columns[k]).mul_(-inverse_share)
            sums = grad_load.cumsum(1)
            from_here = grad_load.add_(sums[:, -1:]).sub_(sums)
            grad_kernel.addcmul_(from_here, rows[k])
            grad_row = grad_row + torch.mul(from_here, kernel, out=sums).sum(-1, keepdim=True)
            # row = 1 / sum of kernel * column, in the rows still running; the others keep the round before
            grad_sum = torch.where(running[k], -grad_row * rows[k].square(), 0)
            grad_row = torch.where(running[k], 0, grad_row)
            if k == 0:
                grad_kernel.add_(grad_sum)
            else:
                grad_kernel.addcmul_(columns[k - 1], grad_sum)
                grad_column = torch.mul(kernel, grad_sum, out=from_here)
        return grad_kernel.mul_(kernel), None, None, None
