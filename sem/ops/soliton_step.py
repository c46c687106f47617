"""soliton_step: the nonlinear phase step and the unitary step in one, for the memory that training saves by it."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import Tensor
from torch.autograd import Function

from sem.ops import boundary
from sem.ops.cayley import act_on_adjoint, cayley_backward, cayley_forward
from sem.ops.pit import RULES, bin_count, pit_backward, pit_forward
from sem.ops.registration import first_order
from sem.ops.solve import ON_FAILURE, OnFailure, SolveInfo, act_on_failure
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
    blocks, restore = boundary.wave("psi", psi, graph.nodes)
    note_autocast("soliton_step", blocks.device.type)
    rotation = boundary.real("kerr", kerr, (graph.nodes,))
    boundary.same_device("kerr", rotation, blocks)
    scale = boundary.scalar("strength", strength, blocks)
    weight = boundary.edge_weight(edge_weight, graph, blocks)
    a = boundary.scalar("half_dt", half_dt, blocks)
    bins, number = bin_count(num_bins), RULES.index(boundary.choice("rule", rule, RULES))
    tol = boundary.positive("tol", tol)
    max_iter = boundary.count("max_iter", max_iter)
    boundary.choice("on_failure", on_failure, ON_FAILURE)
    rows = blocks.reshape(-1, graph.nodes, 2)
    out, status, iterations, residual = _SolitonStep.apply(
        rows, rotation, scale, weight, a, graph.packed(rows.device), bins, number, tol, max_iter, on_failure
    )
    result = restore(out.reshape(blocks.shape))
    if on_failure == "ignore" and not return_info:
        return result
    shape = blocks.shape[:-2]
    info = SolveInfo(status.reshape(shape), iterations.reshape(shape), residual.reshape(shape))
    act_on_failure("soliton_step", info, on_failure)
    return (result, info) if return_info else result


def _backward(
    psi: Tensor,
    psi_out: Tensor,
    grad: Tensor,
    kerr: Tensor,
    strength: Tensor,
    edge_weight: Tensor,
    half_dt: Tensor,
    packed: Tensor,
    num_bins: int,
    rule: int,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients to ``psi``, ``kerr``, ``strength``, ``edge_weight`` and ``half_dt``, and the status of the solve."""
    own_rms = psi.new_empty(0)
    turned = pit_forward(psi, own_rms, strength, kerr, num_bins, rule)
    grad_turned, grad_weight, grad_half_dt, status = cayley_backward(
        turned, psi_out, grad, edge_weight, half_dt, packed, tol, max_iter, to_weights
    )
    grad_psi, _, grad_strength, grad_kerr = pit_backward(psi, own_rms, strength, kerr, grad_turned, num_bins, rule)
    return grad_psi, grad_kerr, grad_strength, grad_weight, grad_half_dt, status


_gradients = first_order(_backward, "soliton_step")


class _SolitonStep(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        psi: Tensor,
        kerr: Tensor,
        strength: Tensor,
        edge_weight: Tensor,
        half_dt: Tensor,
        packed: Tensor,
        num_bins: int,
        rule: int,
        tol: float,
        max_iter: int,
        on_failure: str,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        turned = pit_forward(psi, psi.new_empty(0), strength, kerr, num_bins, rule)
        return cayley_forward(turned, edge_weight, half_dt, packed, tol, max_iter)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        *tensors, ctx.num_bins, ctx.rule, ctx.tol, ctx.max_iter, ctx.on_failure = inputs
        psi_out, status, iterations, residual = output
        ctx.mark_non_differentiable(status, iterations, residual)
        ctx.save_for_backward(psi_out, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        psi_out, psi, *parameters = ctx.saved_tensors
        to_weights = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        *grads, status = _gradients(
            psi,
            psi_out,
            grad.contiguous(),
            *parameters,
            ctx.num_bins,
            ctx.rule,
            ctx.tol,
            ctx.max_iter,
            to_weights,
        )
        act_on_adjoint("soliton_step", status, ctx.on_failure)
        needed = ctx.needs_input_grad[:5]
        return *(grad if need else None for grad, need in zip(grads, needed, strict=True)), *(None,) * 6
