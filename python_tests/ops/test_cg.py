"""cg_solve: conjugate gradients for an operator given as a Python callable."""

import warnings

import pytest
import torch
from helpers import double, generator, relative_error, row_errors
from hypothesis import given, settings
from hypothesis import strategies as st

from sem.ops import SolveError, SolveStatus, cg_solve


def spd_matrix(size, dtype=torch.float64, seed=0, least=0.5):
    root = torch.randn(size, size, dtype=dtype, generator=generator(seed))
    return root @ root.mH / size + least * torch.eye(size, dtype=dtype)


def right_hand_sides(count, size, dtype=torch.float32, seed=1):
    return torch.randn(count, size, dtype=dtype, generator=generator(seed))


def rowwise(matrix):
    """``v -> A v`` for rows of vectors, without a sum whose order could depend on the number of rows."""
    return lambda v: (matrix * v.unsqueeze(-2)).sum(-1)


@pytest.mark.parametrize("tol", [1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
@pytest.mark.parametrize("size", [1, 2, 17, 64])
def test_solution_and_gradients_match_a_direct_solve(size, dtype, tol):
    matrix, b, g = (
        t.to(dtype)
        for t in (
            spd_matrix(size, torch.complex128 if dtype.is_complex else torch.float64),
            right_hand_sides(5, size, dtype),
            right_hand_sides(5, size, dtype, seed=2),
        )
    )
    leaves = matrix.requires_grad_(), b.requires_grad_()
    x, info = cg_solve(lambda v: v @ leaves[0].mT, b, rtol=tol, on_failure="raise")
    grads = torch.autograd.grad(x, leaves, g)

    twins = [double(leaf).requires_grad_() for leaf in leaves]
    exact = torch.linalg.solve(twins[0], twins[1].mT).mT
    exact_grads = torch.autograd.grad(exact, twins, double(g))
    assert x.dtype == dtype and info.converged.all() and (info.residual <= tol).all()
    worst = 10 * (2 * tol + 2e-6)  # condition numbers here stay below 10
    assert (row_errors(x, exact.detach()) <= worst).all()
    assert relative_error(grads[1], exact_grads[1]) <= worst
    assert relative_error(grads[0], exact_grads[0]) <= 2 * worst


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_double_is_solved_in_double_and_passes_gradcheck(dtype):
    matrix, b = spd_matrix(5, dtype), right_hand_sides(2, 5, dtype)

    def solve(root, b):
        operator = matrix + root @ root.mH
        return cg_solve(lambda v: v @ operator.mT, b, rtol=1e-13, on_failure="ignore")[0]

    root = 0.1 * torch.randn(5, 5, dtype=dtype, generator=generator(3))
    assert solve(root, b).dtype == dtype
    assert torch.autograd.gradcheck(solve, (root.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_narrow_right_hand_sides_are_widened(narrow):
    matrix = spd_matrix(9).float()
    b = right_hand_sides(3, 9).to(narrow).requires_grad_()
    x, _ = cg_solve(lambda v: v @ matrix, b)
    assert x.dtype == torch.float32
    assert torch.equal(x, cg_solve(lambda v: v @ matrix, b.detach().float())[0])
    x.sum().backward()
    assert b.grad.dtype == narrow


def test_autocast_changes_no_bit():
    matrix = spd_matrix(33).float().requires_grad_()
    b = right_hand_sides(4, 33).requires_grad_()

    def run():
        return cg_solve(lambda v: v @ matrix, b)[0]

    def gradients(x):
        return torch.autograd.grad(x.sin().sum(), (matrix, b))

    outside = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run()
    assert inside.dtype == torch.float32 and torch.equal(inside, outside)
    assert all(torch.equal(one, other) for one, other in zip(gradients(inside), gradients(outside), strict=True))


def test_everything_that_the_operator_captured_gets_its_gradient():
    scale = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    shift = torch.tensor(0.5, requires_grad=True)
    x, _ = cg_solve(lambda v: scale * v + shift * v, torch.ones(2, 3), rtol=1e-6)
    x.sum().backward()
    exact = -2 / (scale.detach() + 0.5).square()
    torch.testing.assert_close(scale.grad, exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(shift.grad, exact.sum(), rtol=1e-5, atol=0)


def test_no_gradient_is_recorded_where_none_is_asked_for():
    scale = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert not cg_solve(lambda v: scale * v, torch.ones(3))[0].requires_grad
    assert not cg_solve(lambda v: 2 * v, torch.ones(3))[0].requires_grad


def test_second_derivatives_raise():
    b = torch.ones(3, requires_grad=True)
    scale = torch.ones(3, requires_grad=True)
    x, _ = cg_solve(lambda v: scale * v, b)
    (grad,) = torch.autograd.grad(x.square().sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


def test_system_dims_decide_what_one_system_is():
    b = right_hand_sides(6, 10).reshape(6, 5, 2)
    diagonal = torch.linspace(1, 3, 5).unsqueeze(-1)
    for dims, shape in ((1, (6, 5)), (2, (6,)), (3, ())):
        x, info = cg_solve(lambda v: diagonal * v, b, system_dims=dims, rtol=1e-6)
        assert info.status.shape == info.iterations.shape == info.residual.shape == shape
        torch.testing.assert_close(x, b / diagonal)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_empty_batches(shape):
    b = torch.ones(shape, requires_grad=True)
    x, info = cg_solve(lambda v: 2 * v, b, on_failure="raise")
    x.sum().backward()
    assert x.shape == b.grad.shape == shape and info.status.shape == shape[:-1]


@pytest.mark.parametrize("with_guess", [False, True])
def test_zero_right_hand_sides_give_zero_at_once(with_guess):
    b = right_hand_sides(3, 9)
    b[1] = 0
    x, info = cg_solve(lambda v: 2 * v, b, x0=torch.ones_like(b) if with_guess else None, on_failure="raise")
    assert (x[1] == 0).all() and info.iterations[1] == 0 and info.residual[1] == 0
    assert (info.iterations[[0, 2]] == 1).all()


def test_a_good_guess_saves_iterations_and_a_perfect_one_all():
    matrix, b = spd_matrix(33, least=0.05).float(), right_hand_sides(4, 33)
    x, cold = cg_solve(lambda v: v @ matrix, b)
    near, warm = cg_solve(lambda v: v @ matrix, b, x0=x + 1e-3 * torch.ones_like(x))
    assert (warm.iterations < cold.iterations).all() and warm.converged.all()
    assert relative_error(near, double(x)) < 1e-3
    again, done = cg_solve(lambda v: v @ matrix, b, x0=x)
    assert (done.iterations == 0).all() and done.converged.all()
    torch.testing.assert_close(again, x)


def test_a_preconditioner_saves_iterations_and_is_not_what_the_residual_is_measured_in():
    diagonal = torch.logspace(0, 4, 50)
    b = right_hand_sides(3, 50)
    _, plain = cg_solve(lambda v: diagonal * v, b, max_iter=500, rtol=1e-4)
    x, info = cg_solve(lambda v: diagonal * v, b, precond=lambda r: r / diagonal, rtol=1e-4)
    assert (info.iterations <= 2).all() and (plain.iterations > 20).all()
    left = row_errors(diagonal * x, double(b))
    assert (left <= 1e-4).all()
    torch.testing.assert_close(double(info.residual), left, rtol=1e-2, atol=1e-7)


def test_absolute_tolerance():
    matrix, b = spd_matrix(33, least=0.05).float(), right_hand_sides(4, 33)
    _, loose = cg_solve(lambda v: v @ matrix, b, rtol=0.0, atol=1e-1)
    x, tight = cg_solve(lambda v: v @ matrix, b, rtol=0.0, atol=1e-3)
    assert loose.converged.all() and tight.converged.all()
    assert (loose.iterations < tight.iterations).all()
    assert ((x @ matrix - b).norm(dim=1) <= 1.01e-3).all()
    assert cg_solve(lambda v: v @ matrix, b, rtol=0.0, atol=100.0)[1].iterations.max() == 0


@pytest.mark.parametrize("power", [-120, -100, -70, 70, 100, 120])
def test_right_hand_sides_of_any_size(power):
    matrix, b = spd_matrix(9).float(), right_hand_sides(3, 9)
    scale = torch.tensor([[1.0], [2.0**power], [0.0]])
    x, info = cg_solve(lambda v: v @ matrix, b * scale, on_failure="raise")
    alone, _ = cg_solve(lambda v: v @ matrix, b)
    assert info.iterations[0] == info.iterations[1] > 0
    assert relative_error(x[0], double(alone[0])) < 1e-6
    assert relative_error(double(x[1]) * 2.0**-power, double(alone[1])) < 1e-4


def test_the_last_allowed_iteration_may_succeed():
    matrix, b = spd_matrix(33).float(), right_hand_sides(1, 33)
    needed = int(cg_solve(lambda v: v @ matrix, b)[1].iterations)
    _, info = cg_solve(lambda v: v @ matrix, b, max_iter=needed)
    assert info.status == SolveStatus.CONVERGED and info.iterations == needed
    _, short = cg_solve(lambda v: v @ matrix, b, max_iter=needed - 1, on_failure="ignore")
    assert short.status == SolveStatus.MAX_ITER and short.iterations == needed - 1
    _, none = cg_solve(lambda v: v @ matrix, b, max_iter=0, on_failure="ignore")
    assert none.status == SolveStatus.MAX_ITER and none.residual == 1


def test_an_indefinite_operator_is_found_out():
    diagonal = torch.tensor([1.0, 2.0, -1.0])
    b = torch.tensor([[0.1, 0.1, 1.0], [1.0, 1.0, 0.0]])
    x, info = cg_solve(lambda v: diagonal * v, b, on_failure="ignore")
    assert info.status.tolist() == [SolveStatus.INDEFINITE, SolveStatus.CONVERGED]
    assert x.isfinite().all() and info.residual[0] > 1e-5
    with pytest.raises(SolveError, match="1 of 2 systems met a direction of non-positive curvature"):
        cg_solve(lambda v: diagonal * v, b, on_failure="raise")


def test_a_singular_operator_is_not_called_converged():
    diagonal = torch.tensor([1.0, 0.0])
    _, info = cg_solve(lambda v: diagonal * v, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), on_failure="ignore")
    assert not info.converged.any()
    assert info.status[1] == SolveStatus.INDEFINITE


def test_an_indefinite_preconditioner_is_found_out():
    b = torch.tensor([[0.1, 1.0], [1.0, 0.0]])
    sign = torch.tensor([1.0, -1.0])
    x, info = cg_solve(lambda v: 2 * v, b, precond=lambda r: sign * r, on_failure="ignore")
    assert info.status.tolist() == [SolveStatus.BREAKDOWN, SolveStatus.CONVERGED]
    assert x.isfinite().all()
    with pytest.warns(RuntimeWarning, match="1 of 2 systems broke down: the preconditioner is not positive"):
        cg_solve(lambda v: 2 * v, b, precond=lambda r: sign * r)


def test_a_tolerance_below_the_precision_is_not_claimed():
    matrix, b = spd_matrix(33, least=1e-4).float(), right_hand_sides(3, 33)
    _, info = cg_solve(lambda v: v @ matrix, b, rtol=1e-9, max_iter=2000, on_failure="ignore")
    assert (info.status == SolveStatus.STAGNATED).all()
    assert (info.residual > 1e-9).all() and (info.iterations < 2000).all()
    _, fine = cg_solve(lambda v: v @ spd_matrix(33, least=1e-4), b.double(), rtol=1e-9, max_iter=2000)
    assert fine.converged.all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nonfinite_systems_are_contained(bad):
    matrix = spd_matrix(9).float()
    b = right_hand_sides(4, 9)
    clean, _ = cg_solve(rowwise(matrix), b)
    b[2, 3] = bad
    weights = torch.eye(9).requires_grad_()
    b.requires_grad_()
    x, info = cg_solve(lambda v: rowwise(matrix)(v) + 0 * v @ weights, b, on_failure="ignore")
    assert info.status.tolist() == [0, 0, SolveStatus.NONFINITE, 0]
    assert x[2].isnan().all() and info.residual[2].isnan() and info.iterations[2] == 0
    assert torch.equal(x[[0, 1, 3]], clean[[0, 1, 3]])
    x[[0, 1, 3]].sum().backward()
    assert weights.grad.isfinite().all() and b.grad.isfinite().all()


def test_an_operator_that_overflows_is_flagged():
    _, info = cg_solve(lambda v: v * 3e38 * 10, torch.ones(2, 3), on_failure="ignore")
    assert (info.status == SolveStatus.NONFINITE).all()


def test_finished_systems_are_frozen_and_independent():
    matrix = spd_matrix(33, least=0.01).float()
    b = right_hand_sides(12, 33)
    b[::4] = matrix[0]  # solved by a unit vector
    b[1] = 0
    x, info = cg_solve(rowwise(matrix), b)
    assert info.converged.all() and info.iterations.unique().numel() > 2
    order = torch.randperm(12, generator=generator(5))
    shuffled, shuffled_info = cg_solve(rowwise(matrix), b[order])
    assert torch.equal(shuffled, x[order])
    assert torch.equal(shuffled_info.iterations, info.iterations[order])
    for k in range(12):
        alone, alone_info = cg_solve(rowwise(matrix), b[k : k + 1])
        assert torch.equal(alone[0], x[k])
        assert alone_info.iterations[0] == info.iterations[k]
    torch.testing.assert_close(cg_solve(rowwise(matrix), b)[0], x, rtol=0, atol=0)


@pytest.mark.parametrize("recompute_every", [1, 7, 1000])
def test_the_true_residual_is_kept_however_often_it_is_recomputed(recompute_every):
    matrix, b = spd_matrix(64, least=0.05).float(), right_hand_sides(3, 64)
    x, info = cg_solve(lambda v: v @ matrix, b, rtol=1e-5, max_iter=400, recompute_every=recompute_every)
    assert info.converged.all()
    assert (row_errors(x @ matrix, double(b)) <= 1.1e-5).all()


def test_comparing_with_the_true_residual_more_often_finds_out_sooner_that_they_parted():
    matrix, b = spd_matrix(64, least=1e-3).float(), right_hand_sides(8, 64)
    often, seldom = (
        cg_solve(lambda v: v @ matrix, b, rtol=1e-9, max_iter=1000, recompute_every=k, on_failure="ignore")[1]
        for k in (7, 1000)
    )
    assert (often.iterations < seldom.iterations).all()


@pytest.mark.parametrize("recompute_every", [1, 7, 50, 1000])
def test_beyond_the_precision_it_stops_early_and_near_the_best_there_is(recompute_every):
    matrix, b = spd_matrix(64, least=1e-3).float(), right_hand_sides(8, 64)
    x, info = cg_solve(
        lambda v: v @ matrix, b, rtol=1e-9, max_iter=1000, recompute_every=recompute_every, on_failure="ignore"
    )
    assert (info.status == SolveStatus.STAGNATED).all()
    assert (info.iterations < 500).all() and (info.residual < 1e-3).all()
    torch.testing.assert_close(double(info.residual), row_errors(x @ matrix, double(b)), rtol=0.1, atol=0)


def test_the_adjoint_solve_reports_and_has_its_own_tolerances():
    matrix = spd_matrix(64, least=0.05).float()
    iterations = []
    for adjoint_rtol in (1e-2, 1e-5):
        b = right_hand_sides(3, 64).requires_grad_()
        x, info = cg_solve(lambda v: v @ matrix, b, rtol=1e-5, adjoint_rtol=adjoint_rtol)
        assert info.adjoint is None
        x.backward(right_hand_sides(3, 64, seed=4))
        assert info.adjoint.converged.all() and (info.adjoint.residual <= adjoint_rtol).all()
        iterations.append(int(info.adjoint.iterations.max()))
    assert iterations[0] < iterations[1]
    b = right_hand_sides(3, 64).requires_grad_()
    x, info = cg_solve(lambda v: v @ matrix, b, adjoint_atol=1e9)
    x.sum().backward()
    assert info.adjoint.iterations.max() == 0 and (b.grad == 0).all()


def test_failure_of_the_adjoint_solve_is_reported():
    matrix = spd_matrix(33, least=0.01).float()
    b = torch.zeros(2, 33, requires_grad=True)
    for on_failure, expected in (("raise", pytest.raises(SolveError)), ("warn", pytest.warns(RuntimeWarning))):
        x, info = cg_solve(lambda v: v @ matrix, b, max_iter=2, on_failure=on_failure)
        with expected as caught:
            x.backward(right_hand_sides(2, 33))
        message = str(caught.value) if on_failure == "raise" else str(caught[0].message)
        assert "cg_solve (adjoint): 2 of 2 systems reached max_iter" in message
        assert (info.adjoint.status == SolveStatus.MAX_ITER).all()


def test_on_failure():
    arguments = (lambda v: v @ spd_matrix(33, least=0.01).float(), right_hand_sides(2, 33))
    with pytest.warns(RuntimeWarning, match="cg_solve: 2 of 2 systems reached max_iter; raise max_iter"):
        cg_solve(*arguments, max_iter=3)
    with pytest.raises(SolveError, match="cg_solve: 2 of 2 systems reached max_iter"):
        cg_solve(*arguments, max_iter=3, on_failure="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, info = cg_solve(*arguments, max_iter=3, on_failure="ignore")
        assert "2 of 2 systems reached max_iter" in info.message()
        _, info = cg_solve(*arguments, max_iter=300)
        assert info.message() == "all 2 systems converged"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"matvec": None}, TypeError, "matvec: expected a callable, got NoneType"),
        ({"b": [1.0]}, TypeError, "b: expected a torch.Tensor, got list"),
        ({"b": torch.ones(3, dtype=torch.int64)}, TypeError, "b: expected a floating-point .* got torch.int64"),
        ({"b": torch.ones(())}, ValueError, r"b: expected at least system_dims = 1 dimensions, got shape \[\]"),
        ({"b": torch.ones(2, 0)}, ValueError, r"b: expected systems of at least one unknown, got shape \[2, 0\]"),
        ({"system_dims": 0}, ValueError, "system_dims: expected at least 1, got 0"),
        ({"system_dims": 3}, ValueError, r"b: expected at least system_dims = 3 dimensions, got shape \[2, 3\]"),
        ({"x0": 0.0}, TypeError, "x0: expected a torch.Tensor, got float"),
        ({"x0": torch.ones(3)}, ValueError, r"x0: expected shape \[2, 3\], got \[3\]"),
        ({"x0": torch.ones(2, 3, dtype=torch.complex64)}, TypeError, "x0: expected a real tensor.* got .*complex64"),
        ({"x0": torch.ones(2, 3, device="meta")}, ValueError, "x0: expected device cpu, .* got meta"),
        ({"precond": 2.0}, TypeError, "precond: expected a callable or None, got float"),
        ({"rtol": -1e-5}, ValueError, "rtol: expected a finite number >= 0, got -1e-05"),
        ({"rtol": "small"}, TypeError, "rtol: expected a number >= 0, got str"),
        ({"atol": float("nan")}, ValueError, "atol: expected a finite number >= 0, got nan"),
        ({"adjoint_rtol": -1.0}, ValueError, "adjoint_rtol: expected a finite number >= 0, got -1.0"),
        ({"adjoint_atol": -1.0}, ValueError, "adjoint_atol: expected a finite number >= 0, got -1.0"),
        ({"max_iter": -1}, ValueError, "max_iter: expected at least 0, got -1"),
        ({"max_iter": 2.5}, TypeError, "max_iter: expected an int, got float"),
        ({"recompute_every": 0}, ValueError, "recompute_every: expected at least 1, got 0"),
        ({"on_failure": "shrug"}, ValueError, "on_failure: expected one of 'ignore', 'warn', 'raise', got 'shrug'"),
        ({"matvec": lambda v: v[:1]}, ValueError, r"matvec: expected a result of .* \[2, 3\], got \[1, 3\]"),
        ({"matvec": lambda v: None}, ValueError, r"matvec: expected a result of .* \[2, 3\], got NoneType"),
        ({"matvec": lambda v: 1j * v}, TypeError, "matvec: expected a real result .* got torch.complex64"),
        ({"precond": lambda v: v[:1]}, ValueError, r"precond: expected a result of .* \[2, 3\], got \[1, 3\]"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    arguments = {"matvec": lambda v: 2 * v, "b": torch.ones(2, 3)} | change
    with pytest.raises(error, match=message):
        cg_solve(**arguments)


@given(
    size=st.integers(1, 24),
    count=st.integers(1, 6),
    complex_=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_inverse_of_a_hermitian_operator(size, count, complex_, seed):
    dtype = torch.complex64 if complex_ else torch.float32
    matrix = spd_matrix(size, torch.complex128 if complex_ else torch.float64, seed).to(dtype)
    b, c = right_hand_sides(count, size, dtype, seed), right_hand_sides(count, size, dtype, seed + 1)

    def solve(v):
        return cg_solve(lambda u: u @ matrix.mT, v, rtol=1e-5, max_iter=200, on_failure="raise")[0]

    x, y = solve(b), solve(c)
    assert (row_errors(x @ matrix.mT, double(b)) <= 2e-5).all()
    left, right = torch.vdot(x.flatten(), c.flatten()), torch.vdot(b.flatten(), y.flatten())
    assert abs(left - right) <= 1e-4 * b.norm() * c.norm()
    assert relative_error(solve(b + 2 * c), double(x) + 2 * double(y)) <= 1e-3
