import pytest
import torch
from helpers import (
    NODES,
    TOKENS,
    distinct_rows,
    double,
    exact_solve,
    generator,
    graph,
    relative_error,
    row_errors,
    rows,
    weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sem.ops import SolveError, SolveStatus, Topology, laplacian_cg, laplacian_matvec, reference
from sem.ops.laplacian_cg import laplacian_cg_backward, laplacian_cg_forward

SCREENED_POISSON, CAYLEY_NORMAL_FORM, MIXED = (0.5, 1.0, 0.0), (1.0, 0.0, 0.25), (2.0, 0.5, 0.1)
SYSTEMS = (SCREENED_POISSON, CAYLEY_NORMAL_FORM, MIXED)
TOLERANCES = (1e-4, 1e-5, 1e-6)


def solve_both_ways(tokens, nodes, dtype, system, tol):
    """``b`` with its gradient, value, report and weight gradient of the operator, and the exact ones in double."""
    topology = graph(nodes)
    distinct = distinct_rows(tokens, nodes)
    copies = tokens // distinct if tokens else 1
    few_b, few_cotangents = rows(distinct, nodes, dtype), rows(distinct, nodes, dtype, seed=1)
    b, weight = few_b.repeat(copies, 1).requires_grad_(), weights(topology).requires_grad_()
    cotangent = few_cotangents.repeat(copies, 1)
    x, info = laplacian_cg(b, weight, topology, *system, tol=tol, max_iter=300, return_info=True)
    x.backward(cotangent)

    _, beta, gamma = system
    exact = exact_solve(few_b, weight, topology, *system)
    adjoint = exact_solve(few_cotangents, weight, topology, *system)
    i, j = topology.edges.unbind(1)

    def across(v):
        return v[:, i] - v[:, j]

    def h(v):
        return reference.laplacian_matvec(v, double(weight), topology)

    flow = beta * across(adjoint).conj() * across(exact)
    flow = flow + gamma * (across(adjoint).conj() * across(h(exact)) + across(h(adjoint)).conj() * across(exact))
    exact_b = adjoint.repeat(copies, 1)
    return b, x.detach(), info, weight.grad, exact.repeat(copies, 1), exact_b, -copies * flow.real.sum(0)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("nodes", NODES)
def test_converged_rows_are_right_and_so_are_gradients(nodes, tokens, system):
    dtype = torch.complex64 if tokens % 2 else torch.float32
    for tol in TOLERANCES if nodes * tokens < 1_000_000 else TOLERANCES[1:2]:
        b, x, info, grad_weight, exact, exact_b, exact_weight = solve_both_ways(tokens, nodes, dtype, system, tol)
        assert info.converged.all()
        assert (info.residual <= tol).all()
        # an error is at most the residual over the least eigenvalue, alpha, and the exact solution can be that small
        # too
        condition = double(b).norm(dim=1) / (system[0] * exact.norm(dim=1))
        assert (row_errors(x, exact) <= (2 * tol + 2e-6) * condition.clamp_min(1)).all()
        assert relative_error(b.grad, exact_b) <= 5 * tol + 1e-5
        assert relative_error(grad_weight, exact_weight) <= 5 * tol + 1e-5


def test_exact_gradients_of_the_test_are_those_of_the_twin():
    topology = graph(17)
    *_, exact, exact_b, exact_weight = solve_both_ways(5, 17, torch.complex64, MIXED, 1e-5)
    b, weight = double(rows(5, 17)).requires_grad_(), double(weights(topology)).requires_grad_()
    x = reference.laplacian_cg(b, weight, topology, *MIXED)
    x.backward(double(rows(5, 17, seed=1)))
    for found, twin in ((exact, x.detach()), (exact_b, b.grad), (exact_weight, weight.grad)):
        assert relative_error(found, twin) < 1e-10


def test_by_hand():
    x = laplacian_cg(torch.tensor([3.0, 0.0]), torch.ones(1), Topology(2, [(0, 1)]), alpha=1.0, beta=1.0)
    torch.testing.assert_close(x, torch.tensor([2.0, 1.0]))


def test_without_a_graph_it_divides_by_alpha():
    b = rows(3, 17, torch.float32)
    topology = graph(17)
    x, info = laplacian_cg(b, weights(topology), topology, alpha=4.0, return_info=True)
    torch.testing.assert_close(x, b / 4)
    assert (info.iterations == 1).all()


@pytest.mark.parametrize("power", [0, 20])
def test_zero_rows_cost_nothing(power):
    topology = graph(17)
    b = rows(5, 17) * 2.0**power
    b[1] = 0
    x, info = laplacian_cg(b, weights(topology), topology, 1.0, 1.0, return_info=True)
    assert info.converged.all()
    assert (x[1] == 0).all()
    assert info.iterations[1] == 0 and info.residual[1] == 0
    assert (info.iterations[[0, 2, 3, 4]] > 0).all()


def test_info_has_the_shape_of_the_rows():
    topology = graph(17)
    b = rows(12, 17, torch.float32)
    for shape in ((), (12,), (3, 4), (0, 4)):
        _, info = laplacian_cg(b.new_ones(*shape, 17), weights(topology), topology, 1.0, 1.0, return_info=True)
        assert info.status.shape == info.iterations.shape == info.residual.shape == shape


def test_a_row_that_runs_out_of_iterations_says_so():
    topology = graph(256)
    b = rows(3, 256, torch.float32)
    arguments = (b, weights(topology), topology, 1e-3, 1.0)
    _, info = laplacian_cg(*arguments, tol=1e-6, max_iter=4, return_info=True)
    assert (info.status == SolveStatus.MAX_ITER).all()
    assert (info.iterations == 4).all() and (info.residual > 1e-6).all()
    with pytest.raises(SolveError, match="laplacian_cg: 3 of 3 systems reached max_iter; raise max_iter.*residual"):
        laplacian_cg(*arguments, tol=1e-6, max_iter=4, on_failure="raise")
    with pytest.warns(RuntimeWarning, match="3 of 3 systems reached max_iter"):
        laplacian_cg(*arguments, tol=1e-6, max_iter=4, on_failure="warn")


def test_the_last_allowed_iteration_may_succeed():
    topology = graph(64)
    arguments = (rows(3, 64, torch.float32), weights(topology), topology, 1.0, 1.0)
    _, info = laplacian_cg(*arguments, return_info=True)
    needed = int(info.iterations.max())
    _, again = laplacian_cg(*arguments, max_iter=needed, return_info=True)
    assert again.converged.all()
    _, short = laplacian_cg(*arguments, max_iter=needed - 1, return_info=True)
    assert not short.converged.all()


def test_a_tolerance_below_float32_is_not_claimed():
    topology = graph(64)
    _, info = laplacian_cg(
        rows(5, 64, torch.float32),
        weights(topology),
        topology,
        1e-4,
        1.0,
        1.0,
        tol=1e-9,
        max_iter=1000,
        return_info=True,
    )
    assert not info.converged.any()
    assert (info.status == SolveStatus.STAGNATED).any()


def test_failure_of_the_adjoint_solve_is_reported():
    topology = graph(64)
    nothing = torch.zeros(2, 64, requires_grad=True)
    x = laplacian_cg(nothing, weights(topology), topology, 1.0, 1.0, max_iter=2, on_failure="raise")
    with pytest.raises(SolveError, match=r"laplacian_cg \(adjoint\): 2 of 2 systems reached max_iter"):
        x.backward(rows(2, 64, torch.float32))


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("tokens", [0, 1, 17])
def test_opcheck(tokens, components):
    topology = graph(9)
    b, weight = torch.randn(tokens, 9, components), weights(topology)
    packed, settings_ = topology.packed(b.device), (1.0, 0.5, 0.1, 1e-5, 50)
    torch.library.opcheck(laplacian_cg_forward.op, (b, weight, packed, *settings_, "ignore"))
    for to_weights in (True, False):
        torch.library.opcheck(
            laplacian_cg_backward.op, (b, torch.randn_like(b), weight, packed, *settings_, to_weights)
        )


@given(
    nodes=st.integers(2, 40),
    tokens=st.integers(1, 20),
    seed=st.integers(0, 1000),
    alpha=st.floats(0.5, 4),
    beta=st.floats(0, 2),
    gamma=st.floats(0, 0.5),
)
@settings(deadline=None, max_examples=60)
def test_inverse_of_a_symmetric_operator(nodes, tokens, seed, alpha, beta, gamma):
    topology = graph(nodes, seed=seed % 3)
    weight = weights(topology, seed)
    b, c = rows(tokens, nodes, torch.float32, seed), rows(tokens, nodes, torch.float32, seed + 1)

    def solve(v):
        return laplacian_cg(v, weight, topology, alpha, beta, gamma, tol=1e-5, max_iter=300, on_failure="raise")

    x, y = solve(b), solve(c)
    scale = float(b.norm() * c.norm()) / alpha
    assert abs(float((double(x) * double(c)).sum() - (double(b) * double(y)).sum())) <= 5e-5 * scale
    hx = laplacian_matvec(x, weight, topology)
    system = alpha * x + beta * hx + gamma * laplacian_matvec(hx, weight, topology)
    assert (row_errors(system, double(b)) <= 2e-5).all()
    level = torch.randn(tokens, 1, generator=generator(seed)).expand(-1, nodes)
    assert relative_error(solve(level), double(level) / alpha) <= 2e-5
