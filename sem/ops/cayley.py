"""cayley: the unitary step (I + iaH)^-1 (I - iaH) psi on a graph, solved by conjugate gradients."""

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
def cayley(
    psi: Tensor,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: Tensor | float,
    tol: float = ...,
    max_iter: int = ...,
    *,
    on_failure: OnFailure = ...,
    return_info: Literal[False] = ...,
) -> Tensor: ...
@overload
def cayley(
    psi: Tensor,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: Tensor | float,
    tol: float = ...,
    max_iter: int = ...,
    *,
    on_failure: OnFailure = ...,
    return_info: Literal[True],
) -> tuple[Tensor, SolveInfo]: ...
def cayley(
    psi: Tensor,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: Tensor | float,
    tol: float = 1e-5,
    max_iter: int = 50,
    *,
    on_failure: OnFailure = "ignore",
    return_info: bool = False,
) -> Tensor | tuple[Tensor, SolveInfo]:
    """One Cayley step ``psi_out = (I + iaH)^-1 (I - iaH) psi`` of the wave equation on a graph, ``a = half_dt``.

    The step is unitary. It is computed as ``2y - psi`` with ``(I + iaH) y = psi``; because ``I + iaH`` is not
    symmetric, conjugate gradients run on its normal form ``(I + a^2 H^2) y = (I - iaH) psi``, which is real,
    symmetric and positive definite, preconditioned by its diagonal in normal form ``1 / (1 + a^2 h_kk^2)``.
    They start from a Chebyshev polynomial close to ``1 / (1 + i a h)``, which on small-world graphs is often enough.

    Args:
        psi: ``[..., D]`` complex64, or real blocks ``[..., D, 2]`` in float32, bfloat16 or float16 (widened).
        edge_weight: ``[E]`` real, ``>= 0``, in the order of ``topology.edges``.
        topology: graph with ``D`` nodes and ``E`` edges.
        half_dt: ``a``, half the time step: a number or one-element tensor, any sign.
        tol: a row has converged when ``||psi - (I + iaH) y|| <= tol ||psi||``, confirmed with the true residual.
        max_iter: most iterations per row. Two sparse products are one iteration, those of the first guess included.
        on_failure: what to do about rows that did not converge, in the forward and in the backward solve: ``'ignore'``
            (no device wait), ``'warn'`` or ``'raise'``.
        return_info: also return a :class:`SolveInfo` with the shape of the rows, ``psi.shape[:-1]``.

    Returns:
        The stepped wave in the caller's form (complex64, or float32 real blocks). Converged rows have their input's
        norm; rows with NaN or Inf are NaN and leave the others alone. Each row's bits depend on that row alone.

    Gradients (exact, by implicit differentiation; first order) to psi, edge_weight and half_dt: with
    ``z = (I - iaH)^-1 g``, ``g_psi = 2z - g``, ``g_w[ij] = 2a sum Im(conj(z_i - z_j)(y_i - y_j))`` and
    ``g_a = 2 sum Im(conj(z) . H y)``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        SolveError: some rows did not converge and ``on_failure='raise'``.

    In plain torch: ``torch.linalg.solve(I + 1j * a * H, (I - 1j * a * H) @ psi)``, see
    :func:`sem.ops.reference.cayley`.

    Example:
        >>> graph = Topology.small_world(64, degree=8)
        >>> psi = torch.randn(10, 64, dtype=torch.complex64)
        >>> out, info = cayley(psi, torch.ones(graph.num_edges), graph, half_dt=0.05, return_info=True)
        >>> bool(info.converged.all()), torch.allclose(out.norm(dim=-1), psi.norm(dim=-1))
        (True, True)
    """
    graph = boundary.topology(topology)
    blocks, restore = boundary.wave("psi", psi, graph.nodes)
    note_autocast("cayley", blocks.device.type)
    weight = boundary.edge_weight(edge_weight, graph, blocks)
    a = boundary.scalar("half_dt", half_dt, blocks)
    tol = boundary.positive("tol", tol)
    max_iter = boundary.count("max_iter", max_iter)
    boundary.choice("on_failure", on_failure, ON_FAILURE)
    rows = blocks.reshape(-1, graph.nodes, 2)
    out, status, iterations, residual = _Cayley.apply(
        rows, weight, a, graph.packed(rows.device), tol, max_iter, on_failure
    )
    if on_failure == "ignore" and not return_info:
        return restore(out.reshape(blocks.shape))
    shape = blocks.shape[:-2]
    info = SolveInfo(status.reshape(shape), iterations.reshape(shape), residual.reshape(shape))
    act_on_failure("cayley", info, on_failure)
    result = restore(out.reshape(blocks.shape))
    return (result, info) if return_info else result


@torch.library.custom_op("sem::cayley_forward", mutates_args=())
def cayley_forward(
    psi: Tensor, edge_weight: Tensor, half_dt: Tensor, packed: Tensor, tol: float, max_iter: int
) -> _Solved:
    """``psi`` float32 ``[rows, D, 2]`` to ``(psi_out, status, iterations, residual)``."""
    boundary.require_nonnegative("edge_weight", edge_weight)
    a = boundary.finite("half_dt", half_dt.item())
    rows, nodes, _ = psi.shape
    out, status, iterations, residual = empty_solved(psi)
    native.backend(psi.device.type).cayley_forward(
        graph_view(packed, nodes),
        rows,
        edge_weight.data_ptr(),
        a,
        tol,
        max_iter,
        psi.data_ptr(),
        out.data_ptr(),
        status.data_ptr(),
        iterations.data_ptr(),
        residual.data_ptr(),
        torch.get_num_threads(),
    )
    return out, status, iterations, residual


@cayley_forward.register_fake
def _(psi: Tensor, edge_weight: Tensor, half_dt: Tensor, packed: Tensor, tol: float, max_iter: int) -> _Solved:
    return empty_solved(psi)


@torch.library.custom_op("sem::cayley_backward", mutates_args=())
def cayley_backward(
    psi: Tensor,
    psi_out: Tensor,
    grad: Tensor,
    edge_weight: Tensor,
    half_dt: Tensor,
    packed: Tensor,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> _Solved:
    """``(grad_psi, grad_weight, grad_half_dt, status)``; without ``to_weights`` the middle two are zeros."""
    rows, nodes, _ = psi.shape
    grad_psi, grad_weight, grad_half_dt, status = _empty_gradients(psi, packed)
    native.backend(psi.device.type).cayley_backward(
        graph_view(packed, nodes),
        rows,
        edge_weight.data_ptr(),
        half_dt.item(),
        tol,
        max_iter,
        psi.data_ptr(),
        psi_out.data_ptr(),
        grad.data_ptr(),
        grad_psi.data_ptr(),
        grad_weight.data_ptr() if to_weights else 0,
        grad_half_dt.data_ptr() if to_weights else 0,
        status.data_ptr(),
        torch.get_num_threads(),
    )
    if not to_weights:
        grad_weight.zero_()
        grad_half_dt.zero_()
    return grad_psi, grad_weight, grad_half_dt, status


@cayley_backward.register_fake
def _(
    psi: Tensor,
    psi_out: Tensor,
    grad: Tensor,
    edge_weight: Tensor,
    half_dt: Tensor,
    packed: Tensor,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> _Solved:
    return _empty_gradients(psi, packed)


register_row_vmap(cayley_forward, row_args=(0,), per_row_outputs=(True,) * 4)
register_row_vmap(cayley_backward, row_args=(0, 1, 2), per_row_outputs=(True, False, False, True))

_gradients = first_order(cayley_backward, "cayley")


def _empty_gradients(psi: Tensor, packed: Tensor) -> _Solved:
    rows, nodes, _ = psi.shape
    return (
        torch.empty_like(psi),
        psi.new_empty(edges_of(packed, nodes)),
        psi.new_empty(()),
        psi.new_empty(rows, dtype=torch.int32),
    )


def act_on_adjoint(operator: str, status: Tensor, on_failure: str) -> None:
    """:func:`act_on_failure` for the backward solve, of which the kernel reports the status alone."""
    if on_failure == "ignore":
        return
    unknown = torch.full_like(status, torch.nan, dtype=torch.float32)
    act_on_failure(f"{operator} (adjoint)", SolveInfo(status, torch.zeros_like(status), unknown), on_failure)


class _Cayley(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        psi: Tensor, edge_weight: Tensor, half_dt: Tensor, packed: Tensor, tol: float, max_iter: int, on_failure: str
    ) -> _Solved:
        return cayley_forward(psi, edge_weight, half_dt, packed, tol, max_iter)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Solved) -> None:
        psi, edge_weight, half_dt, packed, ctx.tol, ctx.max_iter, ctx.on_failure = inputs
        psi_out, status, iterations, residual = output
        ctx.mark_non_differentiable(status, iterations, residual)
        ctx.save_for_backward(psi, psi_out, edge_weight, half_dt, packed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        psi, psi_out, edge_weight, half_dt, packed = ctx.saved_tensors
        to_weights = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        grad_psi, grad_weight, grad_half_dt, status = _gradients(
            psi, psi_out, grad.contiguous(), edge_weight, half_dt, packed, ctx.tol, ctx.max_iter, to_weights
        )
        act_on_adjoint("cayley", status, ctx.on_failure)
        return (
            grad_psi if ctx.needs_input_grad[0] else None,
            grad_weight if ctx.needs_input_grad[1] else None,
            grad_half_dt if ctx.needs_input_grad[2] else None,
            None,
            None,
            None,
            None,
        )
