"""The Laplacian product against ``torch.sparse``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sem.bench import peers
from sem.bench.peaks import Work
from sem.bench.problems import complex_normal, multiscale_graph
from sem.bench.registry import Benchmark, Comparison, Contender, Expected
from sem.ops import Topology, laplacian_matvec, reference

VALUE_LIMIT = 2e-6


def forward_work(x: Tensor, graph: Topology) -> Work:
    """Each nonzero once for each row and real component."""
    floats = x.nbytes // 4
    nonzeros = 2 * graph.num_edges + graph.nodes
    return Work(bytes=2 * x.nbytes, multiply_adds=floats / graph.nodes * nonzeros)


def build(rows: int, nodes: int, is_complex: bool, bar: float | None = None) -> Sequence[Comparison]:
    """The peer gets its vectors as columns of a contiguous matrix, the layout it is fastest with."""
    graph, weight = multiscale_graph(nodes)
    wave = complex_normal(rows, nodes, seed=1)
    x = wave if is_complex else wave.real.contiguous()
    x_columns = peers.columns(x) if is_complex else x.T.contiguous()
    wide = x.to(torch.complex128 if is_complex else torch.float64)
    truth = reference.laplacian_matvec(wide, weight.double(), graph)
    expected = [Expected("Hx", truth, VALUE_LIMIT)]
    expected_columns = [Expected("Hx", peers.columns(truth) if is_complex else truth.T, VALUE_LIMIT)]
    matrix = peers.csr_laplacian(weight, graph)
    product = Contender("forward", lambda: [laplacian_matvec(x, weight, graph)], expected, work=forward_work(x, graph))
    sparse = Contender("torch.sparse CSR", lambda: [matrix @ x_columns], expected_columns)
    return [Comparison(product, sparse, "speed-up", bar)]


def benchmark(rows: int, nodes: int, is_complex: bool, bar: float | None = None) -> Benchmark:
    """The comparisons of :func:`build` under the name ``laplacian_matvec-ROWSxNODES-KIND``."""
    name = f"laplacian_matvec-{rows}x{nodes}-{'complex' if is_complex else 'real'}"
    return Benchmark(name, partial(build, rows, nodes, is_complex, bar))


BENCHMARKS = [benchmark(8192, 1024, is_complex=True, bar=6.0), benchmark(8192, 1024, is_complex=False)]
QUICK = [benchmark(512, 128, is_complex=True), benchmark(512, 128, is_complex=False)]
