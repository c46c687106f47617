"""laplacian_matvec: the product of a graph Laplacian with real or complex vectors, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary
from sem.ops.registration import Operator
from sem.ops.topology import Topology, edges_of
from sem.precision import note_autocast


def laplacian_matvec(x: Tensor, edge_weight: Tensor, topology: Topology) -> Tensor:
    """``(H x)_i = sum over neighbours j of w_ij (x_i - x_j)``; H is real, symmetric, positive semi-definite.

    Args:
        x: ``[..., D]``, float32 or complex64 (bfloat16 and float16 are widened). H acts on the real and the imaginary
            part alone.
        edge_weight: ``[E]`` real, ``>= 0``, in the order of ``topology.edges``.
        topology: the graph, with ``D`` nodes and ``E`` edges.

    Returns:
        ``[..., D]``, float32 or complex64. Computed in float32 whatever autocast says; a row's bits depend on that row
        alone.

    Gradients, to any order: ``g_x = H g`` and ``g_w[ij] = sum over rows of (g_i - g_j)(x_i - x_j)``.

    Raises:
        TypeError: an argument of another type or dtype; float64 is refused, never narrowed.
        ValueError: shapes that do not fit, tensors on different devices, a negative weight (checked on the CPU).

    In plain torch: ``degree * x - adjacency @ x`` with a dense ``adjacency``, see
    :func:`sem.ops.reference.laplacian_matvec`.

    Example:
        >>> path = Topology(3, [(0, 1), (1, 2)])
        >>> laplacian_matvec(torch.tensor([1.0, 4.0, 10.0]), torch.tensor([2.0, 3.0]), path)
        tensor([ -6., -12.,  18.])
    """
    graph = boundary.topology(topology)
    rows, restore = boundary.real_or_wave("x", x, graph.nodes)
    note_autocast("laplacian_matvec", rows.device.type)
    weight = boundary.edge_weight(edge_weight, graph, rows)
    return restore(laplacian_matvec_forward(rows, weight, graph.packed(rows.device), False))


def _sizes(x: Tensor, *rest: Any) -> dict[str, int]:
    rows, nodes, components = x.shape
    return {"rows": rows, "nodes": nodes, "components": components}


# Below, x is float32 [rows, D, components]. signed_weight admits negative weights, which higher derivatives need.
laplacian_matvec_forward = Operator(
    "laplacian_matvec_forward(Tensor x, Tensor edge_weight, Tensor graph, bool signed_weight) -> (Tensor out)",
    empty=lambda x, *rest: torch.empty_like(x),
    sizes=_sizes,
    per_row=("x", "out"),
)
laplacian_matvec_weight_gradient = Operator(
    "laplacian_matvec_weight_gradient(Tensor x, Tensor grad_out, Tensor graph) -> (Tensor grad_weight)",
    empty=lambda x, grad_out, graph: x.new_empty(edges_of(graph, x.shape[1])),
    sizes=_sizes,
    per_row=("x", "grad_out"),
)


# Both products are bilinear, and each is the other's derivative, so derivatives of any order are made of the two.
def _keep_tensors(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _forward_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, edge_weight, graph = ctx.saved_tensors
    grad = grad.contiguous()
    to_x, to_weight, *_ = ctx.needs_input_grad
    grad_x = laplacian_matvec_forward(grad, edge_weight, graph, True) if to_x else None
    grad_weight = laplacian_matvec_weight_gradient(x, grad, graph) if to_weight else None
    return grad_x, grad_weight, None, None


def _weight_gradient_backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
    x, grad, graph = ctx.saved_tensors
    direction = direction.contiguous()
    to_x, to_grad, _ = ctx.needs_input_grad
    grad_x = laplacian_matvec_forward(grad, direction, graph, True) if to_x else None
    grad_grad = laplacian_matvec_forward(x, direction, graph, True) if to_grad else None
    return grad_x, grad_grad, None


laplacian_matvec_forward.differentiate(_keep_tensors, _forward_backward)
laplacian_matvec_weight_gradient.differentiate(_keep_tensors, _weight_gradient_backward)
