"""cg_solve: conjugate gradients for any symmetric positive definite operator given as a Python callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sem.ops import boundary
from sem.ops.solve import ON_FAILURE, OnFailure, SolveInfo, SolveStatus, act_on_failure
from sem.precision import note_autocast

Operator = Callable[[Tensor], Tensor]


def cg_solve(
    matvec: Operator,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    precond: Operator | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    max_iter: int = 100,
    recompute_every: int = 50,
    system_dims: int = 1,
    adjoint_rtol: float | None = None,
    adjoint_atol: float | None = None,
    on_failure: OnFailure = "warn",
) -> tuple[Tensor, SolveInfo]:
    """Solves ``A x = b`` for a symmetric (Hermitian) positive definite ``A`` known by its product with a vector.

    Args:
        matvec: ``v -> A v`` for tensors of the shape of ``b``; linear in ``v``. It may capture tensors that need
            gradients. Autocast is off while it runs.
        b: ``[..., *system]``: the last ``system_dims`` dimensions are one system, all others a batch of independent
            ones. float32 or complex64; bfloat16 and float16 are widened to float32; float64 and complex128 are solved
            in double.
        x0: initial guess, the shape of ``b``; zeros by default.
        precond: ``r -> M r`` with ``M`` symmetric positive definite and close to the inverse of ``A``.
        rtol, atol: a system has converged when ``||b - A x|| <= max(rtol ||b||, atol)``, confirmed with the true
            residual.
        max_iter: most iterations per system.
        recompute_every: compare the recursive residual with the true one every so many iterations, and start over
            from the true one where they have parted.
        adjoint_rtol, adjoint_atol: tolerances of the backward solve; ``rtol`` and ``atol`` by default.
        on_failure: ``'ignore'``, ``'warn'`` or ``'raise'`` (:class:`SolveError`), forward and backward.

    Returns:
        ``(x, info)``. ``info`` (:class:`SolveInfo`) has one entry per system; ``info.adjoint`` is filled by the
        backward solve. A system that is done is frozen: it does not depend on the others' progress.

    Gradients (first order, by implicit differentiation): ``l = A^-1 g`` by the same method, ``g_b = l``, and
    ``-l' (dA) x`` for every tensor that ``matvec`` captured. The residual ``b - A x`` at the solution carries them: its
    graph is recorded once, so memory does not grow with the iterations.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or range.

    How it differs from a textbook loop: the residual that stops it is recomputed; one system never decides for another;
    a system that meets negative curvature or an indefinite preconditioner says so instead of reporting success; the
    last allowed iteration may succeed. Method: Hestenes and Stiefel (1952).

    Example:
        >>> scale = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
        >>> x, info = cg_solve(lambda v: scale * v, torch.ones(3))
        >>> x.sum().backward()
        >>> [round(value, 3) for value in scale.grad.tolist()]
        [-1.0, -0.25, -0.062]
    """
    if not callable(matvec):
        raise TypeError(f"matvec: expected a callable, got {type(matvec).__name__}")
    if precond is not None and not callable(precond):
        raise TypeError(f"precond: expected a callable or None, got {type(precond).__name__}")
    b = _field("b", b)
    note_autocast("cg_solve", b.device.type)
    system_dims = boundary.count("system_dims", system_dims, least=1)
    if b.dim() < system_dims:
        raise ValueError(f"b: expected at least system_dims = {system_dims} dimensions, got shape {list(b.shape)}")
    if 0 in b.shape[-system_dims:]:
        raise ValueError(f"b: expected systems of at least one unknown, got shape {list(b.shape)}")
    if x0 is not None:
        x0 = _field("x0", x0)
        boundary.same_device("x0", x0, b)
        if x0.is_complex() and not b.is_complex():
            raise TypeError(f"x0: expected a real tensor, as b is, got {x0.dtype}")
        x0 = x0.to(b.dtype)
        if x0.shape != b.shape:
            raise ValueError(f"x0: expected shape {list(b.shape)}, got {list(x0.shape)}")
    boundary.choice("on_failure", on_failure, ON_FAILURE)
    solver = _Solver(
        matvec,
        precond,
        system_dims,
        boundary.count("max_iter", max_iter),
        boundary.count("recompute_every", recompute_every, least=1),
    )
    rtol = boundary.nonnegative("rtol", rtol)
    atol = boundary.nonnegative("atol", atol)
    adjoint = (
        rtol if adjoint_rtol is None else boundary.nonnegative("adjoint_rtol", adjoint_rtol),
        atol if adjoint_atol is None else boundary.nonnegative("adjoint_atol", adjoint_atol),
    )
    with torch.no_grad():
        x, info = solver.solve(b, x0, rtol, atol)
    act_on_failure("cg_solve", info, on_failure)
    if torch.is_grad_enabled():
        solved = (info.status != SolveStatus.NONFINITE).reshape(info.status.shape + (1,) * system_dims)
        residual = b - solver.apply(torch.where(solved, x, 0.0))  # a NaN solution nobody uses spoils no gradient
        if residual.requires_grad:
            x = _ImplicitSolution.apply(residual, x, solver, adjoint, on_failure, info)
    return x, info


class _ImplicitSolution(Function):
    """Returns the solution; its derivative is ``A^-1`` applied to that of the residual ``b - A x`` at fixed x."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, *rest: Any) -> Tensor:
        ctx.solver, ctx.tolerances, ctx.on_failure, ctx.info = rest
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        adjoint, ctx.info.adjoint = ctx.solver.solve(grad, None, *ctx.tolerances)
        act_on_failure("cg_solve (adjoint)", ctx.info.adjoint, ctx.on_failure)
        return adjoint, None, None, None, None, None


class _Solver:
    def __init__(
        self, matvec: Operator, precond: Operator | None, system_dims: int, max_iter: int, recompute_every: int
    ) -> None:
        self.matvec = matvec
        self.precond = precond
        self.dims = tuple(range(-system_dims, 0))
        self.max_iter = max_iter
        self.recompute_every = recompute_every

    def apply(self, v: Tensor) -> Tensor:
        return self._pinned("matvec", self.matvec, v)

    def _pinned(self, name: str, function: Operator, v: Tensor) -> Tensor:
        with torch.autocast(v.device.type, enabled=False):
            out = function(v)
        if not isinstance(out, Tensor) or out.shape != v.shape:
            got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"{name}: expected a result of the argument's shape {list(v.shape)}, got {got}")
        if out.is_complex() and not v.is_complex():
            raise TypeError(f"{name}: expected a real result for a real argument, got {out.dtype}")
        return out.to(v.dtype)

    def _dot(self, u: Tensor, v: Tensor) -> Tensor:
        product = u.conj() * v if u.is_complex() else u * v
        return (product.real if product.is_complex() else product).sum(self.dims, keepdim=True)

    def _norm(self, v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v, dim=self.dims, keepdim=True)

    def _scale(self, v: Tensor) -> Tensor:
        """The power of two next to each system's largest entry: divided by it, no norm over- or underflows."""
        largest = v.abs().amax(self.dims, keepdim=True)
        limit = 126 if largest.dtype == torch.float32 else 1022
        exponent = torch.frexp(largest).exponent.clamp(-limit, limit)
        return torch.ldexp(torch.ones_like(largest), torch.where(torch.isfinite(largest), exponent, 0))

    def solve(self, b: Tensor, x0: Tensor | None, rtol: float, atol: float) -> tuple[Tensor, SolveInfo]:
        scale = self._scale(b)
        b = b.detach() / scale
        x0 = None if x0 is None else x0.detach() / scale
        norm = self._norm(b)
        target = torch.maximum(rtol * norm, atol / scale)
        x = torch.zeros_like(b) if x0 is None else torch.where(norm > 0, x0, torch.zeros_like(b))
        r = b if x0 is None else b - self.apply(x)
        status = torch.full_like(norm, -1, dtype=torch.int32)  # -1: still running
        status = _settle(status, ~torch.isfinite(norm) | ~torch.isfinite(self._norm(r)), SolveStatus.NONFINITE)
        status = _settle(status, norm == 0, SolveStatus.CONVERGED)
        iterations = torch.zeros_like(status)
        last_true = torch.full_like(norm, torch.inf)
        p, rz = torch.zeros_like(b), torch.ones_like(norm)
        restart = torch.ones_like(status, dtype=torch.bool)
        look_every = 1 if b.device.type == "cpu" else 10  # frozen systems make extra rounds harmless
        for step in range(self.max_iter + 1):
            claims = (status < 0) & (self._norm(r) <= target)
            if step % look_every == 0 or step == self.max_iter:
                if not bool((status < 0).any()):
                    break
                verify = bool(claims.any())
            else:
                verify = True
            if verify or step % self.recompute_every == self.recompute_every - 1:
                true_r = b - self.apply(x)
                true_norm = self._norm(true_r)
                status = _settle(status, claims & (true_norm <= target), SolveStatus.CONVERGED)
                due = step % self.recompute_every == self.recompute_every - 1
                drifted = claims | (due & (self._norm(true_r - r) > 0.5 * true_norm))
                status = _settle(status, drifted & ~(true_norm <= 0.5 * last_true), SolveStatus.STAGNATED)
                last_true = torch.where(drifted, true_norm, last_true)
                restart = restart | drifted
                r = torch.where((status < 0) & drifted, true_r, r)
            if step == self.max_iter:
                break
            z = r if self.precond is None else self._pinned("precond", self.precond, r)
            rz_next = self._dot(r, z)
            status = _settle(status, (rz_next <= 0) & (self._norm(r) > 0), SolveStatus.BREAKDOWN)
            p = torch.where(status < 0, z + torch.where(restart, 0.0, rz_next / rz) * p, p)
            rz = torch.where(status < 0, rz_next, rz)
            restart = torch.zeros_like(restart)
            ap = self.apply(p)
            curvature = self._dot(p, ap)
            status = _settle(status, ~torch.isfinite(curvature), SolveStatus.NONFINITE)
            status = _settle(status, curvature <= 0, SolveStatus.INDEFINITE)
            running = status < 0
            alpha = rz / curvature
            x = torch.where(running, x + alpha * p, x)
            r = torch.where(running, r - alpha * ap, r)
            iterations = iterations + running
        status = _settle(status, status < 0, SolveStatus.MAX_ITER)
        bad = status == SolveStatus.NONFINITE
        x = torch.where(bad, torch.nan, x)
        residual = self._norm(b - self.apply(x)) / torch.where(norm > 0, norm, torch.ones_like(norm))
        residual = torch.where(norm > 0, residual, torch.where(bad, torch.nan, torch.zeros_like(norm)))
        shape = status.shape[: status.dim() - len(self.dims)]
        return x * scale, SolveInfo(status.reshape(shape), iterations.reshape(shape), residual.reshape(shape))


def _settle(status: Tensor, where: Tensor, value: SolveStatus) -> Tensor:
    """Give ``value`` to the systems in ``where`` that are still running."""
    return torch.where((status < 0) & where, int(value), status)


def _field(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        return value
    if value.dtype in (torch.bfloat16, torch.float16):
        return value.to(torch.float32)
    raise TypeError(f"{name}: expected a floating-point or complex tensor, got {value.dtype}")
