"""Online entropic transport: a causal Sinkhorn iteration of tokens against a fixed set of columns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TransportPlan(NamedTuple):
    """``plan [B, S, M]`` with rows that sum to 1; ``iterations`` and ``converged`` are per row, ``[B, S]``."""

    plan: Tensor
    iterations: Tensor
    converged: Tensor


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
    batch, length, columns = log_kernel.shape
    kernel = (log_kernel - log_kernel.detach().amax(-1, keepdim=True)).exp()
    seen = prior_rows + torch.arange(1, length + 1, device=kernel.device, dtype=kernel.dtype).unsqueeze(-1)
    column = torch.ones_like(kernel)  # e^v
    row = torch.zeros_like(kernel[..., :1])  # e^u, of the kernel above
    running = torch.ones_like(row, dtype=torch.bool)
    iterations = torch.zeros_like(running, dtype=torch.int32)
    for _ in range(max_iter):
        fresh = 1 / (kernel * column).sum(-1, keepdim=True)
        settled = (fresh.detach().log() - row.detach().log()).abs() <= tol
        row = torch.where(running, fresh, row)
        iterations = iterations + running
        running = running & ~settled
        load = (kernel * row).cumsum(1) + prior_rows / columns
        column = seen / (columns * load)
        if not bool(running.any()):
            break
    plan = kernel * column
    plan = plan / plan.sum(-1, keepdim=True)
    return TransportPlan(plan, iterations.squeeze(-1), ~running.squeeze(-1))


def sparsify(plan: Tensor, k: int) -> Tensor:
    """Subtracts the k-th largest entry of each row and clips at 0: at most ``k - 1`` nonzeros."""
    threshold = plan.topk(k, dim=-1).values[..., -1:]
    return (plan - threshold).clamp_min(0)
