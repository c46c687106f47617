"""laplacian: the product of a graph Laplacian with real or complex vectors, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from sem import native
from sem.ops import boundary
from sem.ops.registration import register_row_vmap
from sem.ops.topology import Topology, edges_of, graph_view
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
    return restore(_Laplacian.apply(rows, weight, graph.packed(rows.device), False))


@torch.library.custom_op("sem::laplacian_forward", mutates_args=())
def laplacian_forward(x: Tensor, edge_weight: Tensor, packed: Tensor, signed: bool) -> Tensor:
    """``[rows, D, components]`` to the same. ``signed`` admits negative weights, which higher derivatives need."""
    if not signed and x.device.type == "cpu":
        boundary.require_nonnegative("edge_weight", edge_weight)
    rows, nodes, components = x.shape
    out = torch.empty_like(x)
    native.backend(x.device.type).laplacian_forward(
        graph_view(packed, nodes),
        rows,
        components,
        edge_weight.data_ptr(),
        x.data_ptr(),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out


@laplacian_forward.register_fake
def _(x: Tensor, edge_weight: Tensor, packed: Tensor, signed: bool) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("sem::laplacian_weight_gradient", mutates_args=())
def laplacian_weight_gradient(x: Tensor, grad: Tensor, packed: Tensor) -> Tensor:
    rows, nodes, components = x.shape
    out = x.new_empty(edges_of(packed, nodes))
    native.backend(x.device.type).laplacian_weight_gradient(
        graph_view(packed, nodes),
        rows,
        components,
        x.data_ptr(),
        grad.data_ptr(),
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out


@laplacian_weight_gradient.register_fake
def _(x: Tensor, grad: Tensor, packed: Tensor) -> Tensor:
    return x.new_empty(edges_of(packed, x.shape[1]))


register_row_vmap(laplacian_forward, row_args=(0,), per_row_outputs=(True,))
register_row_vmap(laplacian_weight_gradient, row_args=(0, 1), per_row_outputs=(False,))


# Both products are bilinear, and each is the other's derivative, so derivatives of any order are made of the two.
class _Laplacian(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, edge_weight: Tensor, packed: Tensor, signed: bool) -> Tensor:
        return laplacian_forward(x, edge_weight, packed, signed)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, edge_weight, packed, _ = inputs
        ctx.save_for_backward(x, edge_weight, packed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, edge_weight, packed = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = _Laplacian.apply(grad, edge_weight, packed, True) if ctx.needs_input_grad[0] else None
        grad_weight = _WeightGradient.apply(x, grad, packed) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None, None


class _WeightGradient(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, grad: Tensor, packed: Tensor) -> Tensor:
        return laplacian_weight_gradient(x, grad, packed)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        x, grad, packed = ctx.saved_tensors
        direction = direction.contiguous()
        to_x = _Laplacian.apply(grad, direction, packed, True) if ctx.needs_input_grad[0] else None
        to_grad = _Laplacian.apply(x, direction, packed, True) if ctx.needs_input_grad[1] else None
        return to_x, to_grad, None
