"""Conjugate gradients under the names that callers of the propagator know; see :mod:`sem.ops.cg`."""

from __future__ import annotations

from torch import Tensor

from sem.ops.cg import Operator, cg_solve
from sem.ops.solve import OnFailure

__all__ = ["cg_solve", "cg_solve_sparse"]


def cg_solve_sparse(
    matvec: Operator,
    b: Tensor,
    max_iter: int = 50,
    tol: float = 1e-5,
    precond: Operator | None = None,
    x0: Tensor | None = None,
    on_failure: OnFailure = "warn",
) -> Tensor:
    """:func:`cg_solve` for complex vectors in real blocks: ``b`` is ``[..., D, 2]`` and each ``[D, 2]`` one system.

    Returns the solution alone, float32 whatever autocast says.

    Example:
        >>> import torch
        >>> x = cg_solve_sparse(lambda v: v * 2.0, torch.ones(4, 32, 2), max_iter=10, tol=1e-5)
        >>> x.dtype, float(x[0, 0, 0])
        (torch.float32, 0.5)
    """
    solution, _ = cg_solve(
        matvec, b, x0=x0, precond=precond, rtol=tol, max_iter=max_iter, system_dims=2, on_failure=on_failure
    )
    return solution
