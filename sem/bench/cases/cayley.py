"""The Cayley step against eager CG and the precomputed dense unitary; its backward against its forward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from sem.bench import peers
from sem.bench.problems import complex_normal, exact_gradients, multiscale_graph
from sem.bench.registry import Benchmark, Comparison, Contender, Expected, worst_row_error
from sem.ops import cayley, reference

TOL = 1e-5
VALUE_LIMIT = 2 * TOL + 2e-6
GRADIENT_LIMIT = 5 * TOL + 1e-5


def build(tokens: int, nodes: int, dt: float, judged: bool = False) -> Sequence[Comparison]:
    graph, weight = multiscale_graph(nodes)
    half_dt = dt / 2
    psi = complex_normal(tokens, nodes, seed=1)
    truth = reference.cayley(psi.to(torch.complex128), weight.double(), graph, half_dt)
    stepped = [Expected("psi_out", truth, VALUE_LIMIT, worst_row_error)]
    matrix, diagonal = peers.laplacian_matrix(weight, graph), peers.laplacian_diagonal(weight, graph)
    unitary = peers.cayley_unitary(weight, graph, half_dt)
    forward = Contender("forward", lambda: [cayley(psi, weight, graph, half_dt, TOL)], stepped)
    eager = Contender("eager_cg", lambda: [peers.eager_cg(psi, matrix, diagonal, half_dt, TOL)], stepped)
    dense = Contender("psi @ U", lambda: [psi @ unitary], stepped)

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
        Comparison(forward, eager, "speed-up", 6.0 if judged else None),
        Comparison(forward, dense, "time", 1.5 if judged else None),
        Comparison(backward, forward, "time", 2.5 if judged else None),
    ]


def benchmark(tokens: int, nodes: int, dt: float, judged: bool = False) -> Benchmark:
    return Benchmark(f"cayley-{tokens}x{nodes}-dt{dt:g}", partial(build, tokens, nodes, dt, judged))


BENCHMARKS = [
    benchmark(4096, 256, 0.1, judged=True),
    benchmark(4096, 256, 0.01),
    benchmark(512, 1024, 0.1),
    benchmark(512, 1024, 0.01),
]
QUICK = [benchmark(256, 64, 0.1)]
