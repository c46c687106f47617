"""The Cayley step against conjugate gradients in torch and scipy and against the dense unitary, precomputed or built;
its backward against its forward."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sem.bench import peers
from sem.bench.peaks import Work
from sem.bench.problems import complex_normal, exact_gradients, multiscale_graph
from sem.bench.registry import Benchmark, Comparison, Contender, Expected, worst_row_error
from sem.ops import Topology, cayley, reference

TOL = 1e-5
VALUE_LIMIT = 2 * TOL + 2e-6
GRADIENT_LIMIT = 5 * TOL + 1e-5
SCIPY_ROWS = 32


class Bars(NamedTuple):
    """What is aimed at: times faster than eager CG, and the most of the time of ``psi @ U`` and of the forward."""

    eager: float | None = None
    dense: float | None = None
    backward: float | None = None


NO_BARS = Bars()


def forward_work(psi: Tensor, edge_weight: Tensor, graph: Topology, half_dt: float) -> Work:
    """Every product with H takes each nonzero once for each real component; a row takes one for its right-hand side
    and two per iteration."""
    _, info = cayley(psi, edge_weight, graph, half_dt, TOL, return_info=True)
    nonzeros = 2 * graph.num_edges + graph.nodes
    products = info.iterations.numel() + 2 * int(info.iterations.sum())
    return Work(bytes=2 * psi.nbytes, multiply_adds=2.0 * nonzeros * products)


def build(tokens: int, nodes: int, dt: float, bars: Bars = NO_BARS) -> Sequence[Comparison]:
    """Contenders at noise ``[tokens, nodes]`` on the model's graph, a time ``dt`` per step: the forward against eager
    conjugate gradients, both dense products and, where scipy is installed, its solver on a few rows; the backward
    against the forward."""
    graph, weight = multiscale_graph(nodes)
    half_dt = dt / 2
    psi = complex_normal(tokens, nodes, seed=1)
    truth = reference.cayley(psi.to(torch.complex128), weight.double(), graph, half_dt)
    stepped = [Expected("psi_out", truth, VALUE_LIMIT, worst_row_error)]
    matrix, diagonal = peers.laplacian_matrix(weight, graph), peers.laplacian_diagonal(weight, graph)
    unitary = peers.cayley_unitary(weight, graph, half_dt)
    work = forward_work(psi, weight, graph, half_dt)
    forward = Contender("forward", lambda: [cayley(psi, weight, graph, half_dt, TOL)], stepped, work=work)
    eager = Contender("eager_cg", lambda: [peers.eager_cg(psi, matrix, diagonal, half_dt, TOL)], stepped)
    dense = Contender("psi @ U", lambda: [psi @ unitary], stepped)
    built = Contender("U, then psi @ U", lambda: [psi @ peers.built_unitary(weight, graph, half_dt)], stepped)
    few = psi[:SCIPY_ROWS]
    few_stepped = [Expected("psi_out", truth[:SCIPY_ROWS], VALUE_LIMIT, worst_row_error)]
    by_row = Contender(
        "scipy cg by row", lambda: [peers.scipy_cg(few, weight, graph, half_dt, TOL)], few_stepped, len(few) / tokens
    )

    # Noise plus the direction of the step: of noise alone, the sum in grad_half_dt all but cancels.
    moved = (truth - psi).to(torch.complex64)
    grad = complex_normal(tokens, nodes, seed=2) + moved / moved.abs().square().mean().sqrt()
    leaves = [leaf.clone().requires_grad_() for leaf in (psi, weight, torch.tensor(half_dt))]
    out = cayley(leaves[0], leaves[1], graph, leaves[2], TOL)
    exact = exact_gradients(lambda p, w, a: reference.cayley(p, w, graph, a), leaves, grad, 1, tokens)
    names = ("grad_psi", "grad_weight", "grad_half_dt")
    backward = Contender(
        "backward",
        lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True),
        [Expected(name, gradient, GRADIENT_LIMIT) for name, gradient in zip(names, exact, strict=True)],
    )
    return [
        Comparison(forward, eager, "speed-up", bars.eager),
        Comparison(forward, dense, "time", bars.dense),
        Comparison(forward, built, "time"),
        *([Comparison(forward, by_row)] if importlib.util.find_spec("scipy") else []),
        Comparison(backward, forward, "time", bars.backward),
    ]


def benchmark(tokens: int, nodes: int, dt: float, bars: Bars = NO_BARS) -> Benchmark:
    """The comparisons of :func:`build` under the name ``cayley-TOKENSxNODES-dtDT``."""
    return Benchmark(f"cayley-{tokens}x{nodes}-dt{dt:g}", partial(build, tokens, nodes, dt, bars))


BENCHMARKS = [
    benchmark(4096, 256, 0.1, Bars(eager=15.0, dense=0.65, backward=2.0)),
    benchmark(4096, 1024, 0.1, Bars(eager=15.0, dense=0.2, backward=2.0)),
    benchmark(4096, 256, 0.01),
    benchmark(512, 1024, 0.1),
    benchmark(512, 1024, 0.01),
]
QUICK = [benchmark(256, 64, 0.1)]
