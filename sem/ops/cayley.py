"""cayley: the unitary step (I + iaH)^-1 (I - iaH) psi on a graph, solved by conjugate gradients."""

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
        tol: a row has converged when ``||psi - (I + iaH) y|| <= tol ||psi||`` for the ``y`` of what is returned: where
            float32 cannot tell, the residual is measured in float64 (on devices: in two floats).
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
    rows, restore, shape = boundary.wave_rows("psi", psi, graph.nodes)
    note_autocast("cayley", rows.device.type)
    weight = boundary.edge_weight(edge_weight, graph, rows)
    a = boundary.scalar("half_dt", half_dt, rows)
    tol = boundary.positive("tol", tol)
    max_iter = boundary.count("max_iter", max_iter)
    boundary.choice("on_failure", on_failure, ON_FAILURE)
    args = (rows, weight, a, graph.packed(rows.device), tol, max_iter, on_failure)
    return solution("cayley", cayley_forward, args, restore, shape, on_failure, return_info)


# Below, psi is float32 [rows, D, 2] and graph is Topology.packed.
cayley_forward = Operator(
    "cayley_forward(Tensor psi, Tensor edge_weight, Tensor half_dt, Tensor graph, float tol, int max_iter,"
    " str on_failure) -> (Tensor psi_out, Tensor status, Tensor iterations, Tensor residual)",
    empty=lambda psi, *rest: empty_solved(psi),
    sizes=lambda psi, *rest: {"rows": psi.shape[0], "nodes": psi.shape[1]},
    per_row=("psi", "psi_out", "status", "iterations", "residual"),
    private=1,
)


def _empty_gradients(psi: Tensor, psi_out: Tensor, grad_out: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    graph, to_weights = rest[2], rest[-1]
    nodes = psi.shape[1]
    make = psi.new_empty if to_weights else psi.new_zeros
    return torch.empty_like(psi), make(edges_of(graph, nodes)), make(()), *empty_report(psi)


# Without to_weights the gradients to edge_weight and half_dt are zeros.
cayley_backward = Operator(
    "cayley_backward(Tensor psi, Tensor psi_out, Tensor grad_out, Tensor edge_weight, Tensor half_dt, Tensor graph,"
    " float tol, int max_iter, bool to_weights)"
    " -> (Tensor grad_psi, Tensor grad_weight, Tensor grad_half_dt, Tensor status, Tensor iterations, Tensor residual)",
    empty=_empty_gradients,
    sizes=lambda psi, *rest: {"rows": psi.shape[0], "nodes": psi.shape[1]},
    per_row=("psi", "psi_out", "grad_out", "grad_psi", "status", "iterations", "residual"),
)
cayley_backward.first_order("cayley")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: _Solved) -> None:
    psi, edge_weight, half_dt, graph, *ctx.limits, ctx.on_failure = inputs
    psi_out, *report = output
    expect_adjoint(ctx, report)
    ctx.save_for_backward(psi, psi_out, edge_weight, half_dt, graph)


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    psi, psi_out, *parameters = ctx.saved_tensors
    to_weights = any(ctx.needs_input_grad[1:3])
    found = cayley_backward(psi, psi_out, grad.contiguous(), *parameters, *ctx.limits, to_weights)
    act_on_adjoint("cayley", ctx, found[-3:])
    return only_needed(ctx, found[:-3])


cayley_forward.differentiate(_setup_context, _backward)
