"""`converged` is certain: the float64 residual of what is returned, on graphs and settings that float32 cannot hold."""

import random

import pytest
import torch

from sem.ops import Topology, cayley, laplacian_cg, soliton_step
from sem.ops.solve import SolveStatus

LIMIT = 1.01
GRAPHS = {
    "small_world": Topology.small_world(64, 8),
    "ring": Topology(128, [(i, i + 1) for i in range(127)] + [(0, 127)]),
    "path": Topology(4096, [(i, i + 1) for i in range(4095)]),
    "star": Topology(64, [(0, i) for i in range(1, 64)]),
    "pair": Topology(2, [(0, 1)]),
}
TOLERANCES = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]


def laplacian(weight, graph, x):
    i, j = graph.edges.T
    flow = (x[..., i] - x[..., j]) * weight
    return torch.zeros_like(x).index_add(-1, i, flow).index_add(-1, j, -flow)


def float32(value):
    return float(torch.tensor(value, dtype=torch.float32))


def weights_of(kind, graph, draw):
    if kind == "even":
        return torch.rand(graph.num_edges) + 0.5
    return 10 ** torch.empty(graph.num_edges).uniform_(-6, 6 if kind == "decades" else 0)


def cayley_case(graph, weight, psi, half_dt, tol, max_iter):
    out, info = cayley(psi, weight, graph, half_dt, tol, max_iter, return_info=True)
    wide = psi.to(torch.complex128)
    y = (out.to(torch.complex128) + wide) / 2
    left = wide - y - 1j * float32(half_dt) * laplacian(weight.double(), graph, y)
    return info, left.norm(dim=-1) / wide.norm(dim=-1)


def shifted_case(graph, weight, b, system, tol, max_iter):
    x, info = laplacian_cg(b, weight, graph, *system, tol, max_iter, return_info=True)
    alpha, beta, gamma = (float32(value) for value in system)
    hx = laplacian(weight.double(), graph, x.to(torch.complex128))
    left = b - alpha * x.to(torch.complex128) - beta * hx - gamma * laplacian(weight.double(), graph, hx)
    return info, left.norm(dim=-1) / b.to(torch.complex128).norm(dim=-1)


def check(info, true, tol):
    assert not bool(torch.where(info.converged, true > LIMIT * tol, False).any())
    # what is reported says no less, but for what rounding in float32 hides
    assert bool((info.residual >= 0.99 * true - 0.25 * tol)[info.converged].all())
    assert bool((info.residual <= tol)[info.converged].all())


def rows_of(graph, draw, count=5):
    """Noise, a slow wave, a single node, and the wave of the highest frequency there is between neighbours."""
    nodes = torch.arange(graph.nodes)
    rows = torch.randn(count, graph.nodes, dtype=torch.complex64)
    rows[1] = torch.polar(torch.ones(graph.nodes), 2 * torch.pi * nodes / graph.nodes)
    rows[2] = 0
    rows[2, draw.randrange(graph.nodes)] = 1
    rows[3] = (-1.0) ** nodes
    return rows


def drawn_step(graph, weight, psi, draw, tol):
    return cayley_case(graph, weight, psi, 10 ** draw.uniform(-6, 4) * draw.choice([-1, 1]), tol, 300)


def drawn_system(graph, weight, b, draw, tol):
    system = (10 ** draw.uniform(-3, 0), draw.choice([0.0, 1.0, 10.0]), draw.choice([0.0, 1.0]))
    return shifted_case(graph, weight, b, system, tol, 1000)


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("weights", ["even", "decades", "weak"])
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("case", [drawn_step, drawn_system])
def test_no_row_is_called_converged_that_is_not(case, name, weights, tol):
    graph, draw = GRAPHS[name], random.Random(f"{name} {weights} {tol}")
    torch.manual_seed(draw.randrange(1000))
    for _ in range(2 if graph.nodes > 1000 else 8):
        weight = weights_of(weights, graph, draw)
        check(*case(graph, weight, rows_of(graph, draw), draw, tol), tol)


@pytest.mark.parametrize("tol", TOLERANCES)
@pytest.mark.parametrize("half_dt", [1e-4, 0.05, -0.5])
def test_rows_that_float32_can_solve_are_certain(half_dt, tol):
    for name in ("small_world", "ring", "star"):
        torch.manual_seed(0)
        graph = GRAPHS[name]
        half = half_dt / (8 if name == "star" else 1)
        info, true = cayley_case(
            graph, torch.rand(graph.num_edges) + 0.5, rows_of(graph, random.Random(0)), half, tol, 200
        )
        assert bool(info.converged.all()), (name, info.message(), true / tol)


def test_what_float32_cannot_hold_is_stagnated():
    torch.manual_seed(0)
    graph = GRAPHS["star"]
    psi = torch.randn(4, 64, dtype=torch.complex64)
    info, true = cayley_case(graph, torch.ones(63), psi, 1e3, 1e-7, 1000)
    assert set(info.status.tolist()) == {SolveStatus.STAGNATED}
    torch.testing.assert_close(info.residual.double(), true, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_a_certified_row_keeps_its_norm(tol):
    torch.manual_seed(0)
    graph = GRAPHS["small_world"]
    psi = torch.randn(64, 64, dtype=torch.complex64)
    out, info = cayley(psi, torch.ones(graph.num_edges), graph, 0.1, tol, 200, return_info=True)
    assert bool(info.converged.all())
    norms = [wave.to(torch.complex128).norm(dim=-1) for wave in (psi, out)]
    torch.testing.assert_close(norms[1], norms[0], rtol=3e-7, atol=0.0)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize(
    "solve",
    [
        lambda psi, w, g, **options: cayley(psi, w, g, 0.3, 1e-5, **options),
        lambda psi, w, g, **options: laplacian_cg(psi, w, g, 1.0, 1.0, 0.0, 1e-5, **options),
        lambda psi, w, g, **options: soliton_step(psi, torch.ones(64), 0.1, w, g, 0.3, tol=1e-5, **options),
    ],
    ids=["cayley", "laplacian_cg", "soliton_step"],
)
def test_the_adjoint_solve_reports_to_the_callers_info(solve, shape):
    graph = GRAPHS["small_world"]
    torch.manual_seed(0)
    psi = torch.randn(*shape, 64, dtype=torch.complex64, requires_grad=True)
    out, info = solve(psi, torch.ones(graph.num_edges), graph, return_info=True)
    assert info.adjoint is None
    weight = torch.randn_like(out)
    weight[..., 0, :] = 0  # nothing to solve for
    (out * weight).real.sum().backward()
    adjoint = info.adjoint
    assert adjoint.status.shape == adjoint.iterations.shape == adjoint.residual.shape == shape
    assert bool(adjoint.converged.all()) and float(adjoint.residual.max()) <= 1e-5
    assert int(adjoint.iterations[..., 0].max()) == 0 and int(adjoint.iterations[..., 1:].min()) > 0
    _, hurried = solve(psi, torch.ones(graph.num_edges), graph, return_info=True, max_iter=1)
    assert hurried.adjoint is None


def test_an_adjoint_that_fails_can_be_told_afterwards():
    graph = GRAPHS["star"]
    psi = torch.randn(4, 64, dtype=torch.complex64, requires_grad=True)
    out, info = cayley(psi, torch.ones(63), graph, 50.0, 1e-5, 2, return_info=True)
    out.abs().sum().backward()
    assert set(info.adjoint.status.tolist()) <= {SolveStatus.MAX_ITER, SolveStatus.STAGNATED}
    assert "max_iter" in info.adjoint.message() or "precision" in info.adjoint.message()
