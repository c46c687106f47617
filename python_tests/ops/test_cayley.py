from itertools import product

import pytest
import torch
from helpers import (
    NODES,
    TOKENS,
    distinct_rows,
    double,
    exact_solve,
    graph,
    relative_error,
    row_errors,
    rows,
    weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sem.ops import SolveError, SolveStatus, Topology, cayley, reference
from sem.ops.cayley import cayley_backward, cayley_forward

TIME_STEPS = (0.01, 0.1, 1.0, 10.0)
TOLERANCES = (1e-4, 1e-5, 1e-6)


def exact_step(psi, cotangent, weight, topology, a):
    """The step, the cotangent that suits a test of its gradients, and those gradients, in double.

    To ``cotangent`` the derivative of the step in ``a`` is added, so that the gradient to ``a``, one number, is not the
    rounding left over by a sum of random signs.
    """
    weight, a = double(weight), float(torch.tensor(a))
    i, j = topology.edges.unbind(1)

    def h(v):
        return reference.laplacian_matvec(v, weight, topology)

    def inverse(v, a):  # (I + iaH)^-1 v
        return exact_solve(v - 1j * a * h(v), weight, topology, 1.0, 0.0, a * a)

    psi = double(psi)
    y = inverse(psi, a)
    velocity = inverse(-2j * h(y), a)
    g = double(cotangent) + velocity * (cotangent.norm() / velocity.norm().clamp_min(1e-30))
    g = double(g.to(torch.complex64))
    z = inverse(g, -a)
    current = (z[:, i] - z[:, j]).conj() * (y[:, i] - y[:, j])
    return 2 * y - psi, g, (2 * z - g, 2 * a * current.imag.sum(0), 2 * (z.conj() * h(y)).imag.sum())


def step_and_gradients(psi, weight, topology, a, cotangent, tol, max_iter=300):
    """Value, report, gradients to psi, weights and half_dt, and the adjoint rows' status."""
    leaves = psi.requires_grad_(), weight.requires_grad_(), torch.tensor(a, requires_grad=True)
    out, info = cayley(leaves[0], leaves[1], topology, leaves[2], tol, max_iter, return_info=True)
    grads = torch.autograd.grad(out, leaves, cotangent)
    _, _, _, adjoint_status, _, _ = cayley_backward(
        *(torch.view_as_real(part.detach()).contiguous() for part in (psi, out, cotangent)),
        weight.detach(),
        leaves[2].detach(),
        topology.packed(psi.device),
        tol,
        max_iter,
        False,
    )
    return out.detach(), info, grads, adjoint_status


@pytest.mark.parametrize(
    ("nodes", "tokens", "dt"),
    [case for case in product(NODES, TOKENS, TIME_STEPS) if case[0] * case[1] < 1_000_000 or case[2] == 0.1],
)
def test_converged_rows_are_right_and_so_are_gradients(nodes, tokens, dt):
    topology, distinct = graph(nodes), distinct_rows(tokens, nodes)
    psi, weight, copies = rows(distinct, nodes), weights(topology), tokens // distinct if tokens else 1
    exact, cotangent, exact_grads = exact_step(psi, rows(distinct, nodes, seed=1), weight, topology, dt / 2)
    psi, exact, cotangent, exact_psi = (t.repeat(copies, 1) for t in (psi, exact, cotangent, exact_grads[0]))
    exact_grads = exact_psi, copies * exact_grads[1], copies * exact_grads[2]
    for tol in TOLERANCES:
        out, info, grads, adjoint_status = step_and_gradients(
            psi, weight, topology, dt / 2, cotangent.to(torch.complex64), tol
        )
        done = info.converged
        assert (info.residual[done] <= tol).all()
        assert (row_errors(out[done], exact[done]) <= 2 * tol + 2e-6).all()
        assert (row_errors(grads[0], exact_grads[0])[adjoint_status == 0] <= 2 * tol + 2e-6).all()
        given_up = ~done
        assert (info.status[given_up] == SolveStatus.STAGNATED).all() and (info.residual[given_up] > tol).all()
        assert dt == 10.0 or done.all()
        if done.all() and (adjoint_status == 0).all():
            for grad, exact_grad in zip(grads, exact_grads, strict=True):
                assert relative_error(grad, exact_grad) <= 5 * tol + 1e-5


@pytest.mark.parametrize("dt", TIME_STEPS)
def test_exact_step_of_the_test_is_the_twin(dt):
    topology = graph(17)
    psi, weight, a = rows(3, 17), weights(topology), torch.tensor(dt / 2)
    exact, cotangent, grads = exact_step(psi, rows(3, 17, seed=1), weight, topology, dt / 2)
    leaves = [double(leaf).requires_grad_() for leaf in (psi, weight, a)]
    twin = reference.cayley(leaves[0], leaves[1], topology, leaves[2])
    assert relative_error(exact, twin.detach()) < 1e-9
    for grad, twin_grad in zip(grads, torch.autograd.grad(twin, leaves, cotangent), strict=True):
        assert relative_error(grad, twin_grad) < 1e-9


@pytest.mark.parametrize("dt", TIME_STEPS)
def test_two_coupled_nodes_by_hand(dt):
    """The sum of the two is at rest, their difference turns: H has eigenvalues 0 and 2w."""
    weight, a = 1.5, dt / 2
    psi = torch.tensor([1.0 + 0j, 0.0])
    phase = (1 - 2j * a * weight) / (1 + 2j * a * weight)
    out = cayley(psi, torch.tensor([weight]), Topology(2, [(0, 1)]), a, 1e-6)
    torch.testing.assert_close(out, torch.tensor([(1 + phase) / 2, (1 - phase) / 2]), rtol=0, atol=4e-6)


def test_twin_differentiates_half_dt():
    topology = graph(5, degree=2)
    leaves = [double(t).requires_grad_() for t in (rows(2, 5), weights(topology) + 0.1, torch.tensor(0.3))]
    assert torch.autograd.gradcheck(lambda p, w, a: reference.cayley(p, w, topology, a), leaves)
    assert torch.autograd.gradgradcheck(lambda p, w, a: reference.cayley(p, w, topology, a), leaves)


@pytest.mark.parametrize("nodes", [17, 64, 256])
def test_a_hundred_stacked_steps_keep_the_norm(nodes):
    topology = graph(nodes)
    psi, weight = rows(20, nodes), weights(topology)
    start = double(psi).norm(dim=1)
    for _ in range(100):
        before = double(psi).norm(dim=1)
        psi = cayley(psi, weight, topology, 0.5, 1e-5, 100, on_failure="raise")
        assert ((double(psi).norm(dim=1) / before).square() - 1).abs().max() <= 1e-6
    assert ((double(psi).norm(dim=1) / start).square() - 1).abs().max() <= 1e-5


def test_real_blocks_in_any_width_give_float32_blocks():
    topology = graph(33)
    psi, weight = rows(6, 33), weights(topology)
    out = cayley(psi, weight, topology, 0.25)
    blocks = torch.view_as_real(psi)
    assert torch.equal(cayley(blocks, weight, topology, 0.25), torch.view_as_real(out))
    cotangent = torch.randn(6, 33, 2)
    for narrow in (torch.bfloat16, torch.float16):
        leaf = blocks.to(narrow).requires_grad_()
        wide = leaf.detach().float().requires_grad_()
        narrow_out, wide_out = (cayley(x, weight, topology, 0.25) for x in (leaf, wide))
        assert narrow_out.dtype == torch.float32 and torch.equal(narrow_out, wide_out)
        narrow_out.backward(cotangent)
        wide_out.backward(cotangent)
        assert leaf.grad.dtype == narrow and torch.equal(leaf.grad, wide.grad.to(narrow))


def test_half_dt_as_number_or_tensor():
    topology = graph(17)
    psi, weight = rows(4, 17), weights(topology)
    out = cayley(psi, weight, topology, 0.25)
    for half_dt in (torch.tensor(0.25), torch.tensor([0.25]), torch.tensor(0.25, dtype=torch.bfloat16)):
        half_dt.requires_grad_()
        stepped = cayley(psi, weight, topology, half_dt)
        assert torch.equal(stepped, out)
        stepped.real.sum().backward()
        assert half_dt.grad.shape == half_dt.shape and half_dt.grad.dtype == half_dt.dtype
    assert torch.equal(cayley(psi, weight, topology, 1 / 4), out)
    assert relative_error(cayley(psi, weight, topology, 0), double(psi)) < 1e-6


def test_autocast_and_compile_keep_the_gradient_of_half_dt():
    topology = graph(17)
    psi, weight = rows(4, 17), weights(topology)

    def gradient(step):
        half_dt = torch.tensor(0.25, requires_grad=True)
        return torch.autograd.grad(step(half_dt).real.sin().sum(), half_dt)[0]

    def step(half_dt):
        return cayley(psi, weight, topology, half_dt)

    expected = gradient(step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gradient(step), expected)
    torch.compiler.reset()
    torch.testing.assert_close(gradient(torch.compile(step, fullgraph=True)), expected)
    assert torch.equal(torch.func.grad(lambda a: step(a).real.sin().sum())(torch.tensor(0.25)), expected)


def test_zero_rows_cost_nothing():
    topology = graph(17)
    psi = rows(5, 17).requires_grad_()
    with torch.no_grad():
        psi[1] = 0
    out, info = cayley(psi, weights(topology), topology, 0.5, return_info=True)
    assert info.converged.all()
    assert (out[1] == 0).all() and info.iterations[1] == 0 and info.residual[1] == 0
    assert (info.iterations[[0, 2, 3, 4]] > 0).all()
    out.real.sum().backward()
    assert psi.grad.isfinite().all()


def test_info_has_the_shape_of_the_rows():
    topology = graph(17)
    for shape in ((), (12,), (3, 4), (0, 4)):
        psi = torch.ones(*shape, 17, dtype=torch.complex64)
        _, info = cayley(psi, weights(topology), topology, 0.1, return_info=True)
        assert info.status.shape == info.iterations.shape == info.residual.shape == shape


def ring(nodes):
    """Every node between the one before it and the one behind it, edges in no order."""
    edges = torch.tensor([[j, (j + 1) % nodes] for j in range(nodes)])
    return Topology(nodes, edges[torch.randperm(nodes, generator=torch.Generator().manual_seed(0))])


@pytest.mark.parametrize("nodes", [3, 4, 65, 256])
@pytest.mark.parametrize("a", [0.05, 1.0, -30.0])
def test_a_ring_is_solved_at_once_whatever_the_time_step(nodes, a):
    topology = ring(nodes)
    psi, weight = rows(20, nodes), weights(topology)
    exact, cotangent, exact_grads = exact_step(psi, rows(20, nodes, seed=1), weight, topology, a)
    out, info, grads, adjoint_status = step_and_gradients(
        psi, weight, topology, a, cotangent.to(torch.complex64), 1e-5, max_iter=1
    )
    assert info.converged.all() and (adjoint_status == 0).all() and (info.iterations == 1).all()
    assert (row_errors(out, exact) <= 2e-5).all()
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        assert relative_error(grad, exact_grad) <= 5e-5
    assert not cayley(psi, weight, topology, a, max_iter=0, return_info=True)[1].converged.any()


def test_a_row_of_a_ring_keeps_its_bits_and_its_nans():
    topology = ring(33)
    psi, weight = rows(40, 33), weights(topology)
    whole = cayley(psi, weight, topology, 0.7)
    assert torch.equal(cayley(psi[17:18], weight, topology, 0.7), whole[17:18])
    psi[5, 3] = torch.nan
    spoiled = cayley(psi, weight, topology, 0.7)
    assert spoiled[5].isnan().all()
    kept = torch.arange(40) != 5
    assert torch.equal(spoiled[kept], whole[kept])


def test_a_ring_with_a_broken_link_or_a_chord_is_solved_as_any_graph():
    edges = ring(16).edges
    chord = torch.cat([edges, torch.tensor([[0, 8]])])
    for graph_of in (edges[1:], chord, torch.cat([edges[1:], torch.tensor([[0, 8]])])):
        topology = Topology(16, graph_of)
        psi, weight = rows(4, 16), weights(topology)
        expected = reference.cayley(double(psi), double(weight), topology, 0.3)
        assert (row_errors(cayley(psi, weight, topology, 0.3), expected) <= 3e-5).all()


def test_what_cannot_converge_says_so():
    topology = graph(256)
    psi, weight = rows(4, 256), weights(topology)
    _, info = cayley(psi, weight, topology, 5.0, 1e-6, 20, return_info=True)
    assert (info.status == SolveStatus.MAX_ITER).all()
    assert (info.iterations == 20).all() and (info.residual > 1e-6).all()
    _, info = cayley(psi, weight, topology, 5.0, 1e-9, 2000, return_info=True)
    assert (info.status == SolveStatus.STAGNATED).all()
    assert (info.iterations < 2000).all() and (info.residual > 1e-9).all()
    _, info = cayley(psi, weight, topology, 0.5, 1e-6, 0, return_info=True)
    assert (info.status == SolveStatus.MAX_ITER).all()


def test_reported_residual_is_the_true_one():
    topology = graph(64)
    psi, weight = rows(4, 64), weights(topology)
    out, info = cayley(psi, weight, topology, 0.5, 1e-6, 4, return_info=True)
    assert not info.converged.any()
    y = (double(out) + double(psi)) / 2
    left = y + 0.5j * reference.laplacian_matvec(y, double(weight), topology)
    torch.testing.assert_close(double(info.residual), row_errors(left, double(psi)), rtol=1e-4, atol=0)


def test_the_last_allowed_iteration_may_succeed():
    topology = graph(64)
    psi, weight = rows(3, 64), weights(topology)

    def solve(max_iter):
        return cayley(psi, weight, topology, 0.5, max_iter=max_iter, return_info=True)[1]

    least = int(solve(50).iterations.max())
    while solve(least - 1).converged.all():
        least -= 1
    assert least > 1 and solve(least).converged.all()
    assert solve(least).iterations.max() == least


def test_on_failure():
    topology = graph(64)
    psi, weight = rows(3, 64), weights(topology)
    psi[0] = 0
    arguments = (psi, weight, topology, 0.5, 1e-6, 3)
    with pytest.raises(SolveError, match="cayley: 2 of 3 systems reached max_iter; raise max_iter.*residual"):
        cayley(*arguments, on_failure="raise")
    with pytest.warns(RuntimeWarning, match="cayley: 2 of 3 systems reached max_iter"):
        warned = cayley(*arguments, on_failure="warn")
    assert torch.equal(warned, cayley(*arguments))
    psi[1, 5] = torch.nan
    with pytest.raises(SolveError, match="1 of 3 systems reached max_iter.*1 of 3 systems hold NaN or Inf"):
        cayley(*arguments, on_failure="raise")
    assert cayley(psi[:1], *arguments[1:], on_failure="raise").shape == (1, 64)


@pytest.mark.parametrize("on_failure", ["warn", "raise"])
def test_failure_of_the_adjoint_solve_is_reported(on_failure):
    topology = graph(64)
    psi = torch.zeros(2, 64, dtype=torch.complex64, requires_grad=True)
    out = cayley(psi, weights(topology), topology, 0.5, 1e-6, 3, on_failure=on_failure)
    expected = (
        pytest.warns(RuntimeWarning, match="2 of 2 systems reached max_iter")
        if on_failure == "warn"
        else pytest.raises(SolveError, match=r"cayley \(adjoint\): 2 of 2 systems reached max_iter")
    )
    with expected:
        out.backward(rows(2, 64))


@pytest.mark.parametrize("tokens", [0, 1, 17])
def test_opcheck(tokens):
    topology = graph(9)
    psi, weight, a = torch.randn(tokens, 9, 2), weights(topology), torch.tensor(0.3)
    packed = topology.packed(psi.device)
    torch.library.opcheck(cayley_forward.op, (psi, weight, a, packed, 1e-5, 50, "ignore"))
    for to_weights in (True, False):
        torch.library.opcheck(
            cayley_backward.op, (psi, psi.clone(), torch.randn_like(psi), weight, a, packed, 1e-5, 50, to_weights)
        )


@given(
    nodes=st.integers(2, 40),
    tokens=st.integers(1, 20),
    half_dt=st.floats(-0.5, 0.5),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=80)
def test_unitary_linear_and_reversible(nodes, tokens, half_dt, seed):
    topology = graph(nodes, seed=seed % 3)
    weight = weights(topology, seed)
    psi, phi = rows(tokens, nodes, seed=seed), rows(tokens, nodes, seed=seed + 1)

    def step(wave, a=half_dt):
        return cayley(wave, weight, topology, a, 1e-5, 200, on_failure="raise")

    out = step(psi)
    assert ((double(out).norm(dim=1) / double(psi).norm(dim=1)).square() - 1).abs().max() <= 1e-6
    scale = float(psi.norm() * phi.norm())
    assert (
        abs(
            torch.vdot(double(out).flatten(), double(step(phi)).flatten())
            - torch.vdot(double(psi).flatten(), double(phi).flatten())
        )
        <= 1e-4 * scale
    )
    assert relative_error(step(out, -half_dt), double(psi)) <= 1e-4
    assert relative_error(step(psi.conj(), -half_dt), double(out).conj()) <= 1e-4
    assert relative_error(step(1j * psi), 1j * double(out)) <= 1e-4
    level = psi[:, :1].expand(-1, nodes)
    assert relative_error(step(level), double(level)) <= 1e-4
