"""How the cost of every operator's forward grows: with tokens, width, density of the graph and length of the step;
that of a diffraction image with pixels, spindle angles, mosaic domains and sources."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from sem.bench import peers
from sem.bench.cases import diffraction as images
from sem.bench.cases.cayley import TOL, VALUE_LIMIT, forward_work
from sem.bench.cases.laplacian_matvec import VALUE_LIMIT as PRODUCT_LIMIT
from sem.bench.cases.laplacian_matvec import forward_work as product_work
from sem.bench.cases.pit import BINS
from sem.bench.cases.pit import LIMITS as PIT_LIMITS
from sem.bench.cases.scan import LIMITS as SCAN_LIMITS
from sem.bench.cases.scan import scan_inputs
from sem.bench.peaks import Work
from sem.bench.problems import complex_normal, multiscale_graph
from sem.bench.registry import (
    Benchmark,
    Comparison,
    Contender,
    Expected,
    Point,
    Registry,
    relative_error,
    worst_row_error,
)
from sem.ops import cayley, diffraction, laplacian_matvec, reference, reference_diffraction
from sem.ops.pit import pit
from sem.ops.scan import scan

WHERE = {
    "tokens": 1024,
    "width": 256,
    "sparsity": 8,
    "dt": 0.1,
    "pixels": 2**16,
    "phi": 1,
    "domains": 1,
    "sources": 1,
}
"""What stays while one of them grows."""
AXES: dict[str, tuple[float, ...]] = {
    "tokens": (64, 256, 1024, 4096),
    "width": (64, 128, 256, 512, 1024, 2048),
    "sparsity": (2, 4, 8, 16, 32),
    "dt": (0.01, 0.03, 0.1, 0.3, 1.0),
    "pixels": (2**14, 2**16, 2**18, 2**20, 2**22),
    "phi": (1, 4, 16, 64),
    "domains": (1, 4, 16, 64),
    "sources": (1, 4, 16, 64),
}
QUICK_WHERE = WHERE | {"tokens": 64, "width": 64, "pixels": 2**10}
QUICK_AXES: dict[str, tuple[float, ...]] = {
    "tokens": (16, 64),
    "width": (64, 128),
    "sparsity": (4, 8),
    "dt": (0.01, 0.1),
    "pixels": (2**10, 2**12),
    "phi": (1, 4),
    "domains": (1, 4),
    "sources": (1, 4),
}
CHECKED_ROWS = 32
STEPS = 256
"""Longest sequence of a scan; more tokens are more sequences."""


def _first_rows(
    truth: Tensor,
    limit: float,
    measure: Callable[[Tensor, Tensor], float] = relative_error,
    rows_of: Callable[[Tensor], Tensor] = lambda value: value,
) -> Sequence[Expected]:
    """Rows do not depend on each other, so the first ones answer for all."""
    return [Expected("out", truth, limit, lambda value, truth: measure(rows_of(value)[: len(truth)], truth))]


def build_cayley(tokens: int, width: int, sparsity: int, dt: float) -> Sequence[Comparison]:
    """The Cayley step of ``[tokens, width]`` on a graph of mean degree ``sparsity`` and more, over a time ``dt``,
    against eager conjugate gradients."""
    graph, weight = multiscale_graph(width, sparsity)
    half_dt = dt / 2
    psi = complex_normal(tokens, width, seed=1)
    matrix, diagonal = peers.laplacian_matrix(weight, graph), peers.laplacian_diagonal(weight, graph)
    few = psi[:CHECKED_ROWS].to(torch.complex128)
    expected = _first_rows(reference.cayley(few, weight.double(), graph, half_dt), VALUE_LIMIT, worst_row_error)
    work = forward_work(psi, weight, graph, half_dt)
    native = Contender("forward", lambda: [cayley(psi, weight, graph, half_dt, TOL)], expected, work=work)
    eager = Contender("eager_cg", lambda: [peers.eager_cg(psi, matrix, diagonal, half_dt, TOL)], expected)
    return [Comparison(native, eager)]


def build_laplacian_matvec(tokens: int, width: int, sparsity: int) -> Sequence[Comparison]:
    """The Laplacian's product with ``[tokens, width]`` against a sparse matrix of torch."""
    graph, weight = multiscale_graph(width, sparsity)
    x = complex_normal(tokens, width, seed=1)
    few = x[:CHECKED_ROWS].to(torch.complex128)
    truth = reference.laplacian_matvec(few, weight.double(), graph)
    matrix, columns = peers.csr_laplacian(weight, graph), peers.columns(x)
    expected, work = _first_rows(truth, PRODUCT_LIMIT), product_work(x, graph)
    native = Contender("forward", lambda: [laplacian_matvec(x, weight, graph)], expected, work=work)
    expected_columns = _first_rows(truth, PRODUCT_LIMIT, rows_of=peers.rows)
    sparse = Contender("torch.sparse CSR", lambda: [matrix @ columns], expected_columns)
    return [Comparison(native, sparse)]


def build_pit(tokens: int, width: int) -> Sequence[Comparison]:
    """Phase transport of ``[tokens, width]``, forward only, against the kernel density estimate."""
    psi, rms, strength = complex_normal(tokens, width, seed=1), torch.ones(tokens), torch.tensor(0.1)
    few = psi[:CHECKED_ROWS].to(torch.complex128)
    truth = reference.pit(few, rms[:CHECKED_ROWS].double(), strength.double(), BINS)
    expected = _first_rows(truth, PIT_LIMITS["out"])
    work = Work(bytes=2 * psi.nbytes)
    native = Contender("forward", lambda: [pit(psi, rms, strength, BINS)], expected, work=work)
    estimate = Contender("KDE in torch", lambda: [peers.kde_pit(psi, rms, strength, BINS)], expected)
    return [Comparison(native, estimate)]


def build_scan(tokens: int, width: int) -> Sequence[Comparison]:
    """The scan of ``tokens`` steps in all, ``STEPS`` to a sequence, over ``width`` channels against the tuned loop."""
    steps = min(tokens, STEPS)
    inputs = scan_inputs(tokens // steps, steps, width)
    wide = [tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in inputs]
    truth = reference.scan(*(t[:1] for t in wide[:3]), *wide[3:])[0]
    expected = _first_rows(truth, SCAN_LIMITS["states"])
    work = Work(bytes=2 * inputs[0].nbytes)
    native = Contender("forward", lambda: [scan(*inputs)[0]], expected, work=work)
    loop = Contender("tuned loop", lambda: [peers.tuned_loop_scan(*inputs)], expected)
    return [Comparison(native, loop)]


def build_diffraction(pixels: int, phi: int, domains: int, sources: int) -> Sequence[Comparison]:
    """A square image; its middle rows answer for all, since a pixel depends on itself alone."""
    side = math.isqrt(pixels)
    rows = range(side // 2 - 2, side // 2 + 2)
    orientation, image = images.problem(side, phi, domains, sources)
    few = images.problem(side, phi, domains, sources, rows)[1](reference_diffraction.diffraction, orientation)

    def expected(limit: float) -> Sequence[Expected]:
        return _first_rows(few, limit, rows_of=lambda value: value[rows.start :])

    native = Contender("forward", lambda: [image(diffraction, orientation)], expected(images.IMAGE_LIMIT))
    twin = partial(image, reference_diffraction.diffraction, orientation, dtype=torch.float32)
    return [Comparison(native, Contender("twin in torch", lambda: [twin()], expected(images.TWIN_LIMIT)))]


BUILDERS: dict[str, Callable[..., Sequence[Comparison]]] = {
    "cayley": build_cayley,
    "laplacian_matvec": build_laplacian_matvec,
    "pit": build_pit,
    "scan": build_scan,
    "diffraction": build_diffraction,
}


def benchmarks(axes: Mapping[str, Sequence[float]], where: Mapping[str, float]) -> Registry:
    """Each operator at every size of each axis that it has, the others as in ``where``."""
    found = []
    for operator, build in BUILDERS.items():
        parameters = list(inspect.signature(build).parameters)
        at = {name: where[name] for name in parameters}
        for axis in (axis for axis in axes if axis in parameters):
            for size in axes[axis]:
                name = f"{operator}-{axis}-{size:.8g}"
                found.append(Benchmark(name, partial(build, **at | {axis: size}), Point(operator, axis, size)))
    return Registry(found)


GROWTH, QUICK_GROWTH = benchmarks(AXES, WHERE), benchmarks(QUICK_AXES, QUICK_WHERE)
