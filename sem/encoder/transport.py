"""Online entropic transport: a causal Sinkhorn iteration of tokens against a fixed set of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


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
    loads = torch.zeros(batch, max_iter, columns, device=device)
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
    """
    columns = log_kernel.shape[-1]
    seen = prior_rows + _row_numbers(log_kernel)
    return _iterate(log_kernel, seen, tol, max_iter, lambda added, _: added + prior_rows / columns)[0]


def continue_transport(
    log_kernel: Tensor, prior_rows: float, tol: float, state: TransportState
) -> tuple[TransportPlan, TransportState]:
    """:func:`online_transport` of rows behind those that left ``state``, and the state that these leave.

    A row gets what it would get in one call with all rows before it; the time does not depend on their number.
    """
    loads, lost, rows = state
    _, max_iter, columns = loads.shape
    seen = prior_rows + (rows.view(-1, 1, 1) + _row_numbers(log_kernel))

    def column_loads(added: Tensor, k: int) -> Tensor:
        return loads[:, k, None] + (added + lost[:, k, None]) + prior_rows / columns

    plan, added = _iterate(log_kernel, seen, tol, max_iter, column_loads)
    # Kahan's sum: float64 would do as well, but not every device has it
    added = torch.cat([added, added[:, -1:].expand(-1, max_iter - added.shape[1], -1)], 1) + lost
    after = loads + added
    return plan, TransportState(after, added - (after - loads), rows + log_kernel.shape[1])


def _row_numbers(log_kernel: Tensor) -> Tensor:
    """1 to S, ``[S, 1]``."""
    return torch.arange(1, log_kernel.shape[1] + 1, device=log_kernel.device, dtype=log_kernel.dtype).unsqueeze(-1)


def _iterate(
    log_kernel: Tensor, seen: Tensor, tol: float, max_iter: int, column_loads: Callable[[Tensor, int], Tensor]
) -> tuple[TransportPlan, Tensor]:
    """The rounds. ``seen`` is the number of rows up to each one, the prior's included; ``column_loads`` puts the prior
    and the rows before these, as they were in round k, on top of what these rows add to the columns.

    The second result is what all these rows add to the columns in each round that was run, ``[B, rounds, M]``.
    """
    columns = log_kernel.shape[-1]
    kernel = (log_kernel - log_kernel.detach().amax(-1, keepdim=True)).exp()
    column = torch.ones_like(kernel)  # e^v
    row = torch.zeros_like(kernel[..., :1])  # e^u, of the kernel above
    running = torch.ones_like(row, dtype=torch.bool)
    iterations = torch.zeros_like(running, dtype=torch.int32)
    added = []
    for k in range(max_iter):
        fresh = 1 / (kernel * column).sum(-1, keepdim=True)
        settled = (fresh.detach().log() - row.detach().log()).abs() <= tol
        row = torch.where(running, fresh, row)
        iterations = iterations + running
        running = running & ~settled
        load = (kernel * row).cumsum(1)
        added.append(load.detach()[:, -1:].clone())
        if not bool(running.any()):
            break
        column = seen / (columns * column_loads(load, k))
    # rows before these may have needed more rounds: the last round has their final sums
    column = seen / (columns * column_loads(load, max_iter - 1))
    plan = kernel * column
    plan = plan / plan.sum(-1, keepdim=True)
    return TransportPlan(plan, iterations.squeeze(-1), ~running.squeeze(-1)), torch.cat(added, 1)


def sparsify(plan: Tensor, k: int) -> Tensor:
    """Subtracts the k-th largest entry of each row and clips at 0: at most ``k - 1`` nonzeros."""
    threshold = plan.topk(k, dim=-1).values[..., -1:]
    return (plan - threshold).clamp_min(0)
