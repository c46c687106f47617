"""ring_echo: rows moved forward in time on a ring, turned entry by entry, and moved back, and the gradients."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sem.ops import boundary
from sem.ops.cayley import cayley_backward, cayley_forward
from sem.ops.potential_step import potential_step_backward, potential_step_forward
from sem.ops.registration import Operator, only_needed
from sem.ops.topology import Topology

_LIMITS = 1e-6, 200  # of the solves on a device: tolerance and iterations


def ring_echo(
    psi: Tensor, potential: Tensor, kerr: Tensor, edge_weight: Tensor, half_dt: float | Tensor = 0.05
) -> Tensor:
    """``U^-1 exp(i (potential + kerr I)) U psi``, with ``U = (I + iaH)^-1 (I - iaH)`` on a ring and the intensities
    ``I = |U psi|^2`` over their mean in the row.

    ``H`` is the Laplacian of the ring whose edge ``j`` joins entry ``j`` to the next one, the last to the first. What
    is between the two steps is :func:`sem.ops.potential_step`, each step is :func:`sem.ops.cayley`; here both are
    solved by elimination, in one pass over memory. Without phases a row stays as it is: phases become interference.

    Args:
        psi: complex64 ``[..., D]``, or its real blocks ``[..., D, 2]`` in float32, bfloat16 or float16 (widened);
            ``D >= 3``.
        potential: ``[..., D]`` real, in radians, as many as entries of ``psi``.
        kerr: ``[D]`` real, the angle by which an entry of the mean intensity is turned; zeros for none.
        edge_weight: ``[D]`` real, ``>= 0``, in the ring's order.
        half_dt: ``a``, half the time step: a number or one-element tensor, any sign.

    Returns:
        The form of ``psi``: complex64 ``[..., D]`` or float32 ``[..., D, 2]``, each row with its norm. Computed in
        float32 whatever autocast says; a row's bits depend on that row alone, and a row of ``psi`` with NaN gives NaN.
        Elimination needs no pivots, and loses what the condition of ``I + iaH`` costs, at most
        ``1e-7 (1 + 4 a max(edge_weight))`` or so.

    Gradients: exact, of first order, to all five. With ``h = U G`` for the gradient ``G``, phases get
    ``q = Im(conj(w) h)`` at ``w = exp(i phi) U psi``; psi gets ``U^-1`` of what comes back through the phases; edges
    get the currents of both steps, see :func:`sem.ops.cayley`. The backward pass keeps the inputs and the result; on
    the CPU the order of every sum is fixed.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit, fewer than three entries, negative weights, tensors on different devices.
        NotImplementedError: a second derivative was asked for (on the CPU).

    In plain torch: :func:`sem.ops.reference.ring_echo`.

    Example:
        >>> psi = torch.randn(10, 64, dtype=torch.complex64)
        >>> still, weight = torch.zeros(64), torch.ones(64)
        >>> torch.allclose(ring_echo(psi, torch.zeros(10, 64), still, weight, 0.5), psi, atol=1e-5)
        True
        >>> out = ring_echo(psi, torch.randn(10, 64), still, weight, 0.5)
        >>> torch.allclose(out.abs(), psi.abs(), atol=1e-2), torch.allclose(out.norm(dim=-1), psi.norm(dim=-1))
        (False, True)
    """
    rows, restore, shape = boundary.wave_rows("psi", psi)
    width = rows.shape[1]
    if width < 3:
        raise ValueError(f"psi: expected at least 3 entries in a row, a ring, got {width}")
    angle = boundary.real("potential", potential, (*shape, width))
    strength = boundary.real("kerr", kerr, (width,))
    weight = boundary.real("edge_weight", edge_weight, (width,))
    for name, tensor in (("potential", angle), ("kerr", strength), ("edge_weight", weight)):
        boundary.same_device(name, tensor, rows)
    a = boundary.scalar("half_dt", half_dt, rows)
    return restore(ring_echo_forward(rows, angle.reshape(rows.shape[:2]), strength, weight, a))


# Below, psi is float32 [rows, D, 2], potential [rows, D] and half_dt 0-d. On devices they are the operators that the
# definition names.
def _composed_forward(psi: Tensor, potential: Tensor, kerr: Tensor, edge_weight: Tensor, half_dt: Tensor) -> Tensor:
    graph = _ring(psi.shape[1]).packed(psi.device)
    moved = cayley_forward(psi, edge_weight, half_dt, graph, *_LIMITS, "ignore")[0]
    turned = potential_step_forward(moved, potential, kerr)
    return cayley_forward(turned, edge_weight, -half_dt, graph, *_LIMITS, "ignore")[0]


def _composed_backward(
    psi: Tensor, potential: Tensor, kerr: Tensor, edge_weight: Tensor, half_dt: Tensor, out: Tensor, grad_out: Tensor
) -> tuple[Tensor, ...]:
    graph = _ring(psi.shape[1]).packed(psi.device)

    def back(before: Tensor, after: Tensor, grad: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return cayley_backward(before, after, grad, edge_weight, a, graph, *_LIMITS, True)[:3]

    moved = cayley_forward(psi, edge_weight, half_dt, graph, *_LIMITS, "ignore")[0]
    turned = potential_step_forward(moved, potential, kerr)
    grad_turned, weight_behind, dt_behind = back(turned, out, grad_out, -half_dt)
    grad_moved, grad_potential, grad_kerr = potential_step_backward(moved, potential, kerr, grad_turned)
    grad_psi, weight_ahead, dt_ahead = back(psi, moved, grad_moved, half_dt)
    return grad_psi, grad_potential, grad_kerr, weight_ahead + weight_behind, dt_ahead - dt_behind


_ring = lru_cache(maxsize=32)(Topology.ring)


def _sizes(psi: Tensor, *rest: Any) -> dict[str, int]:
    return {"rows": psi.shape[0], "width": psi.shape[1]}


ring_echo_forward = Operator(
    "ring_echo_forward(Tensor psi, Tensor potential, Tensor kerr, Tensor edge_weight, Tensor half_dt) -> (Tensor out)",
    empty=lambda psi, *rest: torch.empty_like(psi),
    sizes=_sizes,
    per_row=("psi", "potential", "out"),
    composed=_composed_forward,
)
ring_echo_backward = Operator(
    "ring_echo_backward(Tensor psi, Tensor potential, Tensor kerr, Tensor edge_weight, Tensor half_dt, Tensor out,"
    " Tensor grad_out) -> (Tensor grad_psi, Tensor grad_potential, Tensor grad_kerr, Tensor grad_edge_weight,"
    " Tensor grad_half_dt)",
    empty=lambda *args: tuple(map(torch.empty_like, args[:5])),
    sizes=_sizes,
    per_row=("psi", "potential", "out", "grad_out", "grad_psi", "grad_potential"),
    composed=_composed_backward,
)
ring_echo_backward.first_order("ring_echo")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, ring_echo_backward(*ctx.saved_tensors, grad.contiguous()))


ring_echo_forward.differentiate(_setup_context, _backward)
