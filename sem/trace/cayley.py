"""The trace of one token's Cayley step: what the solve is given, how its residual falls, what comes of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem import ops
from sem.ops import Topology, reference
from sem.trace.record import Trace

BACKENDS = ("native", "reference")


def trace_cayley(
    psi: Tensor,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: float,
    tol: float = 1e-5,
    max_iter: int = 50,
    *,
    backend: str = "native",
    cotangent: Tensor | None = None,
) -> Trace:
    """Record ``psi``, ``H psi``, the right-hand side ``(I - iaH) psi``, the solve, ``y``, ``psi_out`` and gradients.

    ``native`` is :func:`sem.ops.cayley` on the device of ``psi``, whose iterates are those of solves that stop early:
    ``solve[k]`` is what ``max_iter = k`` leaves. ``reference`` is plain torch in the precision of ``psi``: its
    ``cg[k]`` are the iterates of conjugate gradients on the normal form from zero, and ``psi_out`` comes from a dense
    solve. All else has one name in both.

    Args:
        psi: complex ``[D]``; complex64 for ``native``, complex64 or complex128 for ``reference``.
        edge_weight: real ``[E]`` of the same precision.
        half_dt, tol, max_iter: as for :func:`sem.ops.cayley`.
        cotangent: complex ``[D]``, the gradient at ``psi_out``; ``psi`` itself by default.

    Raises:
        TypeError, ValueError: as :func:`sem.ops.cayley`; ``psi`` is not one token; another back end.

    Example:
        >>> graph, psi = Topology.small_world(16, degree=4), torch.randn(16, dtype=torch.complex64)
        >>> trace = trace_cayley(psi, torch.ones(graph.num_edges), graph, 0.05)
        >>> [entry.name for entry in trace.entries][:3]
        ['psi', 'H psi', 'rhs']
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if psi.shape != (topology.nodes,):
        raise ValueError(f"psi: expected one token, shape [{topology.nodes}], got {list(psi.shape)}")
    native = backend == "native"
    leaves = [psi.detach().requires_grad_(), edge_weight.detach().requires_grad_()]
    leaves.append(torch.tensor(half_dt, dtype=edge_weight.dtype, device=psi.device, requires_grad=True))
    wave, weight, a = leaves
    trace = Trace(
        {
            "operator": "cayley",
            "backend": backend,
            "device": psi.device,
            "dtype": psi.dtype,
            "half_dt": half_dt,
            "tol": tol,
            "max_iter": max_iter,
        }
    )
    laplacian = ops.laplacian_matvec if native else reference.laplacian_matvec
    with torch.no_grad():
        h_psi = laplacian(wave, weight, topology)
        trace.add("psi", wave)
        trace.add("H psi", h_psi)
        trace.add("rhs", wave - 1j * a * h_psi)
        (_native_solve if native else _textbook_solve)(trace, wave, weight, topology, half_dt, tol, max_iter)
    out = (
        ops.cayley(wave, weight, topology, a, tol, max_iter) if native else reference.cayley(wave, weight, topology, a)
    )
    with torch.no_grad():
        y = (out + wave) / 2
        residual = wave - y - 1j * a * laplacian(y, weight, topology)
        trace.add("y", y)
        trace.add("psi_out", out)
        trace.add("norm_out / norm_in", _norm(out) / _norm(wave))
        trace.add("residual", _norm(residual) / _norm(wave))
    grads = torch.autograd.grad(out, leaves, psi if cotangent is None else cotangent)
    for name, grad in zip(("grad psi", "grad edge_weight", "grad half_dt"), grads, strict=True):
        trace.add(name, grad)
    return trace


def _native_solve(trace: Trace, psi: Tensor, weight: Tensor, topology: Topology, *settings: Any) -> None:
    half_dt, tol, max_iter = settings
    _, whole = ops.cayley(psi, weight, topology, half_dt, tol, max_iter, return_info=True)
    for k in range(int(whole.iterations) + 1):
        out, info = ops.cayley(psi, weight, topology, half_dt, tol, k, return_info=True)
        trace.add(f"solve[{k}].y", (out + psi) / 2)
        trace.add(f"solve[{k}].residual", info.residual)
    trace.add("iterations", whole.iterations)
    trace.add("status", whole.status)


def _textbook_solve(trace: Trace, psi: Tensor, weight: Tensor, topology: Topology, *settings: Any) -> None:
    """Conjugate gradients on ``(I + a^2 H^2) y = (I - iaH) psi``, preconditioned by its diagonal in normal form."""
    half_dt, tol, max_iter = settings

    def h(x: Tensor) -> Tensor:
        return reference.laplacian_matvec(x, weight, topology)

    y, r = torch.zeros_like(psi), psi - 1j * half_dt * h(psi)
    inverse = 1 / (1 + (half_dt * reference.laplacian_dense(weight, topology).diagonal()).square())
    p = inverse * r
    rz = torch.vdot(r, p).real
    for k in range(max_iter + 1):
        residual = _norm(psi - y - 1j * half_dt * h(y)) / _norm(psi)
        trace.add(f"cg[{k}].y", y)
        trace.add(f"cg[{k}].residual", residual)
        if not residual > tol:
            break
        q = p + half_dt**2 * h(h(p))
        step = rz / torch.vdot(p, q).real
        y, r = y + step * p, r - step * q
        z = inverse * r
        before, rz = rz, torch.vdot(r, z).real
        p = z + rz / before * p


def _norm(wave: Tensor) -> Tensor:
    return torch.linalg.vector_norm(wave.cpu().to(torch.complex128))  # some GPUs have no float64
