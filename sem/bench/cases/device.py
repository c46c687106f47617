"""What is timed on a GPU: the operators against torch's own operations on the same GPU, at sizes that fill it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from sem.bench import peers
from sem.bench.cases import pit as pit_case
from sem.bench.cases import scan as scan_case
from sem.bench.cases.cayley import TOL, VALUE_LIMIT
from sem.bench.peaks import Work
from sem.bench.problems import complex_normal, multiscale_graph
from sem.bench.registry import Benchmark, Comparison, Contender, Expected, Registry, worst_row_error
from sem.ops import Topology, cayley, pit, soliton_step

BINS = 32


def forward_work(psi: torch.Tensor, edge_weight: torch.Tensor, graph: Topology, half_dt: float) -> Work:
    """The wave moved once each way; each nonzero of H beside the diagonal taken once in every product with H, with a
    complex number read from shared memory and two multiply-adds: a row takes one product for its right-hand side and
    two per iteration."""
    _, info = cayley(psi, edge_weight, graph, half_dt, TOL, return_info=True)
    products = info.iterations.numel() + 2 * int(info.iterations.sum())
    taken = 2.0 * graph.num_edges * products
    return Work(bytes=2 * psi.nbytes, multiply_adds=2 * taken, local_bytes=8 * taken)


def build_cayley(tokens: int, nodes: int, dt: float, dense_bar: float | None, device: str) -> Sequence[Comparison]:
    """The Cayley step of ``[tokens, nodes]`` on ``device`` against conjugate gradients in torch and against
    ``psi @ U``; with a ``dense_bar`` for the second, thirty times the speed is asked of the first."""
    graph, weight = multiscale_graph(nodes)
    weight, half_dt = weight.to(device), dt / 2
    psi = complex_normal(tokens, nodes, seed=1).to(device)
    unitary = peers.cayley_unitary(weight, graph, half_dt)
    truth = psi.to(torch.complex128) @ peers.cayley_unitary(weight, graph, half_dt, torch.complex128)
    stepped = [Expected("psi_out", truth, VALUE_LIMIT, worst_row_error)]
    matrix, diagonal = peers.laplacian_matrix(weight, graph), peers.laplacian_diagonal(weight, graph)
    work = forward_work(psi, weight, graph, half_dt)
    forward = Contender("forward", lambda: [cayley(psi, weight, graph, half_dt, TOL)], stepped, work=work)
    eager = Contender("CG in torch", lambda: [peers.eager_cg(psi, matrix, diagonal, half_dt, TOL)], stepped)
    dense = Contender("psi @ U", lambda: [psi @ unitary], stepped)
    return [
        Comparison(forward, eager, "speed-up", 30.0 if dense_bar else None),
        Comparison(forward, dense, "speed-up", dense_bar),
    ]


def build_layer(tokens: int, nodes: int, dt: float, device: str) -> Sequence[Comparison]:
    """A propagator layer's step there and back, against its two operators one after the other."""
    graph, weight = multiscale_graph(nodes)
    half_dt = dt / 2
    kerr, strength = torch.full((nodes,), 0.1), torch.tensor(0.5)
    psi, grad = (complex_normal(tokens, nodes, seed=seed).to(device) for seed in (1, 2))
    leaves = [psi, *(tensor.to(device) for tensor in (kerr, strength, weight))]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]

    def both_ways(out: torch.Tensor) -> list[torch.Tensor]:
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    def apart() -> list[torch.Tensor]:
        psi, kerr, strength, weight = leaves
        return both_ways(cayley(pit(psi, None, strength, BINS, kerr=kerr), weight, graph, half_dt, TOL))

    def together() -> list[torch.Tensor]:
        psi, kerr, strength, weight = leaves
        return both_ways(soliton_step(psi, kerr, strength, weight, graph, half_dt, TOL, num_bins=BINS))

    # both are float32 kernels, tested against float64 elsewhere: here they have to agree
    names = ("psi_out", "grad_psi", "grad_kerr", "grad_strength", "grad_weight")
    expected = [Expected(name, value, 5 * TOL) for name, value in zip(names, apart(), strict=True)]
    return [Comparison(Contender("layer", together, expected), Contender("pit, then cayley", apart, expected))]


def cayley_benchmark(tokens: int, nodes: int, dt: float, dense_bar: float | None, device: str) -> Benchmark:
    """The comparisons of :func:`build_cayley` under the name ``cayley-TOKENSxNODES-dtDT``."""
    build = partial(build_cayley, tokens, nodes, dt, dense_bar, device)
    return Benchmark(f"cayley-{tokens}x{nodes}-dt{dt:g}", build)


def scan_benchmark(batch: int, steps: int, channels: int, bar: float | None, device: str) -> Benchmark:
    """The selective scan of ``[batch, steps, channels]`` on ``device`` against a scan in chunks."""
    others = {"chunked scan": peers.chunked_scan}
    build = partial(scan_case.against, batch, steps, channels, others, bar, device)
    return Benchmark(f"scan-{batch}x{steps}x{channels}", build)


def benchmarks(device: str) -> Registry:
    """What is measured and judged on ``device``, with the bars that are aimed at."""
    return Registry(
        [
            cayley_benchmark(65536, 256, 0.1, 1.0, device),
            cayley_benchmark(65536, 1024, 0.1, 2.0, device),
            Benchmark("layer-65536x256", partial(build_layer, 65536, 256, 0.1, device)),
            pit_case.benchmark(16, 512, 256, 20.0, device),
            scan_benchmark(16, 1024, 512, 10.0, device),
        ]
    )


def quick(device: str) -> Registry:
    """The same kinds of comparisons at small sizes and without bars, to see that they run."""
    return Registry(
        [
            cayley_benchmark(256, 64, 0.1, None, device),
            Benchmark("layer-256x64", partial(build_layer, 256, 64, 0.1, device)),
            pit_case.benchmark(2, 64, 64, None, device),
            scan_benchmark(2, 64, 64, None, device),
        ]
    )
