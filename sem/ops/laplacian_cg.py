"""laplacian_cg: conjugate gradients for (alpha I + beta H + gamma H^2) x = b on a graph."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops import boundary
from sem.ops.registration import empty_solved, first_order, register_row_vmap
from sem.ops.solve import ON_FAILURE, OnFailure, SolveInfo, act_on_failure
from sem.ops.topology import Topology, edges_of, graph_view
from sem.precision import note_autocast

_Solved = tuple[Tensor, Tensor, Tensor, Tensor]


@overload
def laplacian_cg(
    b: Tensor,
    edge_weight: Tensor,
    topology: Topology,
    alpha: float,
    beta: float = ...,
    gamma: float = ...,
    tol: float = ...,
    max_iter: int = ...,
    *,
    on_failure: OnFailure = ...,
    return_info: Literal[False] = ...,
) -> Tensor: ...
@overload
def laplacian_cg(
    b: Tensor,
    edge_weight: Tensor,
    topology: Topology,
    alpha: float,
    beta: float = ...,
    gamma: float = ...,
    tol: float = ...,
    max_iter: int = ...,
    *,
    on_failure: OnFailure = ...,
    return_info: Literal[True],
) -> tuple[Tensor, SolveInfo]: ...
def laplacian_cg(
    b: Tensor,
    edge_weight: Tensor,
    topology: Topology,
    alpha: float,
    beta: float = 0.0,
    gamma: float = 0.0,
    tol: float = 1e-5,
    max_iter: int = 100,
    *,
    on_failure: OnFailure = "ignore",
    return_info: bool = False,
) -> Tensor | tuple[Tensor, SolveInfo]:
    """Solves ``S x = b`` with ``S = alpha I + beta H + gamma H^2``, H the weighted Laplacian of a graph.

    S is symmetric positive definite. ``(alpha, 1, 0)`` is the screened Poisson equation; ``(1, 0, a^2)`` is the normal
    form that the Cayley step solves. Preconditioned by ``1 / (alpha + beta h_kk + gamma h_kk^2)``.

    Args:
        b: ``[..., D]`` float32 or complex64 (bfloat16 and float16 are widened). A row, real and imaginary part
            together, is one system.
        edge_weight: ``[E]`` real, ``>= 0``, in the order of ``topology.edges``.
        topology: graph with ``D`` nodes and ``E`` edges.
        alpha: ``> 0``. beta, gamma: ``>= 0``.
        tol: a row has converged when ``||b - S x|| <= tol ||b||``, confirmed with the true residual.
        max_iter: most iterations per row.
        on_failure, return_info: as for :func:`sem.ops.cayley`.

    Returns:
        ``x``, ``[..., D]`` float32 or complex64. Rows with NaN or Inf are NaN and leave the others alone; each row's
        bits depend on that row alone.

    Gradients (exact, by implicit differentiation; first order) to b and edge_weight: with ``l = S^-1 g`` and ``d(.)``
    the difference across an edge, ``g_b = l`` and ``g_w = -sum [beta d(l) d(x) + gamma (d(l) d(Hx) + d(Hl) d(x))]``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        SolveError: some rows did not converge and ``on_failure='raise'``.

    In plain torch: ``torch.linalg.solve`` of the dense matrix, see :func:`sem.ops.reference.laplacian_cg`.

    Example:
        >>> graph = Topology(2, [(0, 1)])
        >>> laplacian_cg(torch.tensor([3.0, 0.0]), torch.ones(1), graph, alpha=1.0, beta=1.0)
        tensor([2., 1.])
    """
    graph = boundary.topology(topology)
    rows, restore = boundary.real_or_wave("b", b, graph.nodes)
    note_autocast("laplacian_cg", rows.device.type)
    weight = boundary.edge_weight(edge_weight, graph, rows)
    coefficients = [
        boundary.positive("alpha", alpha),
        boundary.nonnegative("beta", beta),
        boundary.nonnegative("gamma", gamma),
    ]
    tol = boundary.positive("tol", tol)
    max_iter = boundary.count("max_iter", max_iter)
    boundary.choice("on_failure", on_failure, ON_FAILURE)
    x, status, iterations, residual = _LaplacianCg.apply(
        rows, weight, graph.packed(rows.device), *coefficients, tol, max_iter, on_failure
    )
    if on_failure == "ignore" and not return_info:
        return restore(x)
    shape = b.shape[:-1]
    info = SolveInfo(status.reshape(shape), iterations.reshape(shape), residual.reshape(shape))
    act_on_failure("laplacian_cg", info, on_failure)
    return (restore(x), info) if return_info else restore(x)


@torch.library.custom_op("sem::laplacian_cg_forward", mutates_args=())
def laplacian_cg_forward(
    b: Tensor, edge_weight: Tensor, packed: Tensor, alpha: float, beta: float, gamma: float, tol: float, max_iter: int
) -> _Solved:
    """``b`` float32 ``[rows, D, components]`` to ``(x, status, iterations, residual)``."""
    boundary.require_nonnegative("edge_weight", edge_weight)
    rows, nodes, components = b.shape
    x, status, iterations, residual = empty_solved(b)
    native.backend(b.device.type).laplacian_cg_forward(
        graph_view(packed, nodes),
        rows,
        components,
        edge_weight.data_ptr(),
        alpha,
        beta,
        gamma,
        tol,
        max_iter,
        b.data_ptr(),
        x.data_ptr(),
        status.data_ptr(),
        iterations.data_ptr(),
        residual.data_ptr(),
        torch.get_num_threads(),
    )
    return x, status, iterations, residual


@laplacian_cg_forward.register_fake
def _(
    b: Tensor, edge_weight: Tensor, packed: Tensor, alpha: float, beta: float, gamma: float, tol: float, max_iter: int
) -> _Solved:
    return empty_solved(b)


@torch.library.custom_op("sem::laplacian_cg_backward", mutates_args=())
def laplacian_cg_backward(
    x: Tensor,
    grad: Tensor,
    edge_weight: Tensor,
    packed: Tensor,
    alpha: float,
    beta: float,
    gamma: float,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``(grad_b, grad_weight, status)``; without ``to_weights`` the middle one is zeros."""
    rows, nodes, components = x.shape
    grad_b, grad_weight, status = _empty_gradients(x, packed)
    native.backend(x.device.type).laplacian_cg_backward(
        graph_view(packed, nodes),
        rows,
        components,
        edge_weight.data_ptr(),
        alpha,
        beta,
        gamma,
        tol,
        max_iter,
        x.data_ptr(),
        grad.data_ptr(),
        grad_b.data_ptr(),
        grad_weight.data_ptr() if to_weights else 0,
        status.data_ptr(),
        torch.get_num_threads(),
    )
    if not to_weights:
        grad_weight.zero_()
    return grad_b, grad_weight, status


@laplacian_cg_backward.register_fake
def _(
    x: Tensor,
    grad: Tensor,
    edge_weight: Tensor,
    packed: Tensor,
    alpha: float,
    beta: float,
    gamma: float,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(x, packed)


register_row_vmap(laplacian_cg_forward, row_args=(0,), per_row_outputs=(True,) * 4)
register_row_vmap(laplacian_cg_backward, row_args=(0, 1), per_row_outputs=(True, False, True))

_gradients = first_order(laplacian_cg_backward, "laplacian_cg")


def _empty_gradients(x: Tensor, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, nodes, _ = x.shape
    return torch.empty_like(x), x.new_empty(edges_of(packed, nodes)), x.new_empty(rows, dtype=torch.int32)


class _LaplacianCg(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(b: Tensor, edge_weight: Tensor, packed: Tensor, *settings: Any) -> _Solved:
        *numbers, _ = settings
        return laplacian_cg_forward(b, edge_weight, packed, *numbers)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Solved) -> None:
        _, edge_weight, packed, *ctx.numbers, ctx.on_failure = inputs
        x, status, iterations, residual = output
        ctx.mark_non_differentiable(status, iterations, residual)
        ctx.save_for_backward(x, edge_weight, packed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        x, edge_weight, packed = ctx.saved_tensors
        to_b, to_weights = ctx.needs_input_grad[:2]
        grad_b, grad_weight, status = _gradients(x, grad.contiguous(), edge_weight, packed, *ctx.numbers, to_weights)
        if ctx.on_failure != "ignore":
            unknown = torch.full_like(status, torch.nan, dtype=torch.float32)
            info = SolveInfo(status, torch.zeros_like(status), unknown)
            act_on_failure("laplacian_cg (adjoint)", info, ctx.on_failure)
        return grad_b if to_b else None, grad_weight if to_weights else None, *(None,) * 7
