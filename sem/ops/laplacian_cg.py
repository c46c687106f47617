"""laplacian_cg: conjugate gradients for (alpha I + beta H + gamma H^2) x = b on a graph."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from sem.ops import boundary
from sem.ops.registration import Operator, empty_report, empty_solved, only_needed
from sem.ops.solve import ON_FAILURE, OnFailure, SolveInfo, act_on_adjoint, expect_adjoint, solution
from sem.ops.topology import Topology, edges_of
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
        tol: a row has converged when ``||b - S x|| <= tol ||b||`` for the ``x`` returned: where float32 cannot tell,
            the residual is measured in float64 (on devices: in two floats).
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
    args = (rows, weight, graph.packed(rows.device), *coefficients, tol, max_iter, on_failure)
    return solution("laplacian_cg", laplacian_cg_forward, args, restore, b.shape[:-1], on_failure, return_info)


def _sizes(rhs: Tensor, *rest: Any) -> dict[str, int]:
    rows, nodes, components = rhs.shape
    return {"rows": rows, "nodes": nodes, "components": components}


# Below, b and x are float32 [rows, D, components] and graph is Topology.packed.
laplacian_cg_forward = Operator(
    "laplacian_cg_forward(Tensor b, Tensor edge_weight, Tensor graph, float alpha, float beta, float gamma, float tol,"
    " int max_iter, str on_failure) -> (Tensor x, Tensor status, Tensor iterations, Tensor residual)",
    empty=lambda b, *rest: empty_solved(b),
    sizes=_sizes,
    per_row=("b", "x", "status", "iterations", "residual"),
    private=1,
)


def _empty_gradients(x: Tensor, grad_out: Tensor, edge_weight: Tensor, graph: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    nodes = x.shape[1]
    make = x.new_empty if rest[-1] else x.new_zeros
    return torch.empty_like(x), make(edges_of(graph, nodes)), *empty_report(x)


# Without to_weights the gradient to edge_weight is zeros.
laplacian_cg_backward = Operator(
    "laplacian_cg_backward(Tensor x, Tensor grad_out, Tensor edge_weight, Tensor graph, float alpha, float beta,"
    " float gamma, float tol, int max_iter, bool to_weights)"
    " -> (Tensor grad_b, Tensor grad_weight, Tensor status, Tensor iterations, Tensor residual)",
    empty=_empty_gradients,
    sizes=_sizes,
    per_row=("x", "grad_out", "grad_b", "status", "iterations", "residual"),
)
laplacian_cg_backward.first_order("laplacian_cg")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Solved) -> None:
    _, edge_weight, graph, *ctx.numbers, ctx.on_failure = inputs
    x, *report = output
    expect_adjoint(ctx, report)
    ctx.save_for_backward(x, edge_weight, graph)


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    x, *parameters = ctx.saved_tensors
    to_weights = ctx.needs_input_grad[1]
    found = laplacian_cg_backward(x, grad.contiguous(), *parameters, *ctx.numbers, to_weights)
    act_on_adjoint("laplacian_cg", ctx, found[-3:])
    return only_needed(ctx, found[:-3])


laplacian_cg_forward.differentiate(_setup_context, _backward)
