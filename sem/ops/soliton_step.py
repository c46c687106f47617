"""soliton_step: the nonlinear phase step and the unitary step in one, for the memory that training saves by it."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from sem.ops import boundary
from sem.ops.pit import RULES, bin_count
from sem.ops.registration import Operator, empty_report, empty_solved, only_needed
from sem.ops.solve import ON_FAILURE, OnFailure, SolveInfo, act_on_adjoint, expect_adjoint, solution
from sem.ops.topology import Topology
from sem.precision import note_autocast


@overload
def soliton_step(
    psi: Tensor,
    kerr: Tensor,
    strength: Tensor | float,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: Tensor | float,
    tol: float = ...,
    max_iter: int = ...,
    *,
    num_bins: int = ...,
    rule: str = ...,
    on_failure: OnFailure = ...,
    return_info: Literal[False] = ...,
) -> Tensor: ...
@overload
def soliton_step(
    psi: Tensor,
    kerr: Tensor,
    strength: Tensor | float,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: Tensor | float,
    tol: float = ...,
    max_iter: int = ...,
    *,
    num_bins: int = ...,
    rule: str = ...,
    on_failure: OnFailure = ...,
    return_info: Literal[True],
) -> tuple[Tensor, SolveInfo]: ...
def soliton_step(
    psi: Tensor,
    kerr: Tensor,
    strength: Tensor | float,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: Tensor | float,
    tol: float = 1e-5,
    max_iter: int = 50,
    *,
    num_bins: int = 32,
    rule: str = "score",
    on_failure: OnFailure = "ignore",
    return_info: bool = False,
) -> Tensor | tuple[Tensor, SolveInfo]:
    """``cayley(pit(psi, None, strength, num_bins, rule, kerr=kerr), edge_weight, topology, half_dt, ...)``.

    Same bits and same gradients as the two operators in turn, but only ``psi`` and the result are kept for the
    backward pass. The wave between them is computed again there, which is cheap beside the solve. In a stack, where a
    layer's input is the result of the one before, training keeps one wave a layer instead of two.

    Args:
        psi: ``[..., D]`` complex64, or real blocks ``[..., D, 2]`` in float32, bfloat16 or float16 (widened).
        kerr: ``[D]`` real, the Kerr rotation in radians at mean intensity.
        strength: number or one-element real tensor, the largest shift of a phase in bins.
        edge_weight, topology, half_dt, tol, max_iter, on_failure, return_info: see :func:`sem.ops.cayley`.
        num_bins, rule: see :func:`sem.ops.pit`.

    Returns:
        The wave in the caller's form, each row with its input's norm (and, with ``return_info``, a
        :class:`SolveInfo` with the shape of the rows). Computed in float32 whatever autocast says; a row's bits depend
        on that row alone.

    Gradients, exact and of first order, to ``psi``, ``kerr``, ``strength``, ``edge_weight`` and ``half_dt``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        SolveError: some rows did not converge and ``on_failure='raise'``.
        NotImplementedError: a second derivative was asked for.

    In plain torch: :func:`sem.ops.reference.soliton_step`.

    Example:
        >>> graph = Topology.small_world(64, degree=8)
        >>> psi, kerr = torch.randn(10, 64, dtype=torch.complex64), torch.full((64,), 0.1)
        >>> out = soliton_step(psi, kerr, 0.5, torch.ones(graph.num_edges), graph, half_dt=0.05)
        >>> torch.allclose(out.norm(dim=-1), psi.norm(dim=-1))
        True
    """
    graph = boundary.topology(topology)
    rows, restore, shape = boundary.wave_rows("psi", psi, graph.nodes)
    note_autocast("soliton_step", rows.device.type)
    rotation = boundary.real("kerr", kerr, (graph.nodes,))
    boundary.same_device("kerr", rotation, rows)
    scale = boundary.scalar("strength", strength, rows)
    weight = boundary.edge_weight(edge_weight, graph, rows)
    a = boundary.scalar("half_dt", half_dt, rows)
    bins, number = bin_count(num_bins), RULES.index(boundary.choice("rule", rule, RULES))
    tol = boundary.positive("tol", tol)
    max_iter = boundary.count("max_iter", max_iter)
    boundary.choice("on_failure", on_failure, ON_FAILURE)
    args = (rows, rotation, scale, weight, a, graph.packed(rows.device), bins, number, tol, max_iter, on_failure)
    return solution("soliton_step", soliton_step_forward, args, restore, shape, on_failure, return_info)


# Below, psi is float32 [rows, D, 2] and graph is Topology.packed.
_PARAMETERS = "Tensor kerr, Tensor strength, Tensor edge_weight, Tensor half_dt, Tensor graph"
_LIMITS = "int num_bins, int rule, float tol, int max_iter"


def _sizes(psi: Tensor, *rest: Any) -> dict[str, int]:
    return {"rows": psi.shape[0], "nodes": psi.shape[1]}


soliton_step_forward = Operator(
    f"soliton_step_forward(Tensor psi, {_PARAMETERS}, {_LIMITS}, str on_failure)"
    " -> (Tensor psi_out, Tensor status, Tensor iterations, Tensor residual)",
    empty=lambda psi, *rest: empty_solved(psi),
    sizes=_sizes,
    per_row=("psi", "psi_out", "status", "iterations", "residual"),
    private=1,
)


def _empty_gradients(psi: Tensor, psi_out: Tensor, grad_out: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    kerr, strength, edge_weight, half_dt, _, *_, to_weights = rest
    make = torch.empty_like if to_weights else torch.zeros_like
    return *map(torch.empty_like, (psi, kerr, strength)), make(edge_weight), make(half_dt), *empty_report(psi)


# Without to_weights the gradients to edge_weight and half_dt are zeros.
soliton_step_backward = Operator(
    f"soliton_step_backward(Tensor psi, Tensor psi_out, Tensor grad_out, {_PARAMETERS}, {_LIMITS}, bool to_weights)"
    " -> (Tensor grad_psi, Tensor grad_kerr, Tensor grad_strength, Tensor grad_weight, Tensor grad_half_dt,"
    " Tensor status, Tensor iterations, Tensor residual)",
    empty=_empty_gradients,
    sizes=_sizes,
    per_row=("psi", "psi_out", "grad_out", "grad_psi", "status", "iterations", "residual"),
)
soliton_step_backward.first_order("soliton_step")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, (*ctx.limits, ctx.on_failure) = inputs[:6], inputs[6:]
    psi_out, *report = output
    expect_adjoint(ctx, report)
    ctx.save_for_backward(psi_out, *tensors)


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    psi_out, psi, *parameters = ctx.saved_tensors
    to_weights = any(ctx.needs_input_grad[3:5])
    found = soliton_step_backward(psi, psi_out, grad.contiguous(), *parameters, *ctx.limits, to_weights)
    act_on_adjoint("soliton_step", ctx, found[-3:])
    return only_needed(ctx, found[:-3])


soliton_step_forward.differentiate(_setup_context, _backward)
