"""What every graph operator promises, tested once for each of them."""

from __future__ import annotations

import pytest
import torch
from helpers import OPERATORS, SOLVERS, double, generator, graph, relative_error, rows, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from sem.ops import Topology, cayley, laplacian_cg

every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=str)
every_solver = pytest.mark.parametrize("operator", SOLVERS, ids=str)
complex_operators = pytest.mark.parametrize(
    "operator", [operator for operator in OPERATORS if operator.dtype.is_complex], ids=str
)
real_operators = pytest.mark.parametrize(
    "operator", [operator for operator in OPERATORS if not operator.dtype.is_complex], ids=str
)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(2)
    torch.set_num_threads(before)


def same_bits(first, second):
    return all(torch.equal(as_bits(a), as_bits(b)) for a, b in zip(first, second, strict=True))


def as_bits(tensor):
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).contiguous().view(torch.int32)


def real_loss(out):
    """Not linear in ``out``, so that its gradient differs from entry to entry."""
    return (torch.view_as_real(out) if out.is_complex() else out).sin().sum()


@every_operator
def test_twin_has_exact_derivatives_to_second_order(operator):
    x, weight, topology = operator.problem(2, 5)
    x, weight = double(x).requires_grad_(), double(weight + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: operator.twin(x, w, topology), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: operator.twin(x, w, topology), (x, weight))


@every_operator
def test_autocast_changes_no_bit(operator):
    x, weight, topology = operator.problem()
    cotangent = rows(*x.shape, operator.dtype, seed=1)
    outside = operator.gradients(x, weight, topology, cotangent)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = operator.gradients(x, weight, topology, cotangent)
    assert [part.dtype for part in inside] == [operator.dtype, operator.dtype, torch.float32]
    assert same_bits(inside, outside)


@every_operator
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_widened_and_get_narrow_gradients(operator, narrow):
    x, weight, topology = operator.problem()
    weight = weight.to(narrow)
    cotangent = rows(*x.shape, operator.dtype, seed=1)
    out, _, grad = operator.gradients(x, weight, topology, cotangent)
    wide_out, _, wide_grad = operator.gradients(x, weight.float(), topology, cotangent)
    assert same_bits([out], [wide_out])
    assert grad.dtype == narrow
    assert torch.equal(grad, wide_grad.to(narrow))


@real_operators
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_narrow_rows_are_widened_and_get_narrow_gradients(operator, narrow):
    x, weight, topology = operator.problem()
    x = x.to(narrow)
    cotangent = rows(*x.shape, operator.dtype, seed=1)
    out, grad, _ = operator.gradients(x, weight, topology, cotangent)
    wide_out, wide_grad, _ = operator.gradients(x.float(), weight, topology, cotangent)
    assert out.dtype == torch.float32
    assert same_bits([out], [wide_out])
    assert grad.dtype == narrow
    assert torch.equal(grad, wide_grad.to(narrow))


@every_operator
def test_double_is_refused_not_narrowed(operator):
    x, weight, topology = operator.problem()
    single = "complex64" if operator.dtype.is_complex else "float32"
    with pytest.raises(TypeError, match=rf"{operator.first_argument}: expected {single}.*got torch.\w+.*reference"):
        operator.call(double(x), weight, topology)
    with pytest.raises(TypeError, match="edge_weight: expected float32.*got torch.float64"):
        operator.call(x, double(weight), topology)


@every_operator
@pytest.mark.parametrize("nodes", [3, 64, 257])
def test_a_rows_bits_depend_on_that_row_alone(operator, nodes, two_threads):
    tokens = 70
    x, weight, topology = operator.problem(tokens, nodes)
    x = x * torch.logspace(-3, 3, tokens).unsqueeze(1)  # rows that need unlike numbers of iterations
    cotangent = rows(tokens, nodes, operator.dtype, seed=1)
    out, grad, grad_weight = operator.gradients(x, weight, topology, cotangent)

    order = torch.randperm(tokens, generator=generator(2))
    shuffled = operator.gradients(x[order], weight, topology, cotangent[order])
    assert same_bits(shuffled[:2], (out[order], grad[order]))
    for chosen in (slice(0, 1), slice(69, 70), slice(3, 19), slice(1, 18), slice(5, 70, 9)):
        part = operator.gradients(x[chosen], weight, topology, cotangent[chosen])
        assert same_bits(part[:2], (out[chosen], grad[chosen]))
    other = torch.cat([x[:1], 1e6 * rows(20, nodes, operator.dtype, seed=3), torch.zeros_like(x[:3])])
    assert same_bits([operator.call(other, weight, topology)[:1]], [out[:1]])
    assert same_bits(operator.gradients(x, weight, topology, cotangent), (out, grad, grad_weight))
    two_threads()
    assert same_bits(operator.gradients(x, weight, topology, cotangent), (out, grad, grad_weight))


@every_solver
def test_reports_are_a_rows_own_too(operator, two_threads):
    x, weight, topology = operator.problem(40, 64)
    x[::5] = 0
    if operator.name == "cayley":
        uneven = weight * torch.logspace(-3, 0, weight.numel())  # a wide spectrum, beyond the first guess

        def solve(b):
            return cayley(b, uneven, topology, 8.0, 1e-5, 300, return_info=True)[1]
    else:

        def solve(b):
            return laplacian_cg(b, weight, topology, 1.0, 1.0, 0.5, 1e-5, return_info=True)[1]

    info = solve(x)
    assert info.iterations.unique().numel() > 2
    two_threads()
    for chosen in (slice(0, 1), slice(7, 30), slice(None, None, 5)):
        part = solve(x[chosen])
        assert torch.equal(part.status, info.status[chosen])
        assert torch.equal(part.iterations, info.iterations[chosen])
        assert same_bits([part.residual], [info.residual[chosen]])


@every_operator
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nonfinite_rows_are_contained(operator, bad):
    tokens, where = 40, [0, 5, 17, 39]
    x, weight, topology = operator.problem(tokens)
    clean = torch.ones(tokens, dtype=torch.bool)
    clean[where] = False
    spoiled = x.clone()
    spoiled[where, 4] = bad
    cotangent = rows(*x.shape, operator.dtype, seed=1) * clean.unsqueeze(1)
    out, grad, grad_weight = operator.gradients(x, weight, topology, cotangent)
    spoiled_out, spoiled_grad, spoiled_grad_weight = operator.gradients(spoiled, weight, topology, cotangent)
    assert same_bits([spoiled_out[clean], spoiled_grad[clean]], [out[clean], grad[clean]])
    assert not torch.isfinite(spoiled_out[where]).all(dim=1).any()
    # a masked row's NaN stays out of the sum over rows
    assert relative_error(spoiled_grad_weight, double(grad_weight)) < 1e-6


@every_solver
def test_nonfinite_rows_are_flagged_and_all_nan(operator):
    x, weight, topology = operator.problem(18)
    x[3, 0], x[17, 32] = torch.nan, torch.inf
    if operator.name == "cayley":
        out, info = cayley(x, weight, topology, 0.1, return_info=True)
    else:
        out, info = laplacian_cg(x, weight, topology, 1.0, 1.0, return_info=True)
    assert (info.status == 3).nonzero().flatten().tolist() == [3, 17]
    assert info.iterations[[3, 17]].tolist() == [0, 0]
    assert info.residual.isnan().nonzero().flatten().tolist() == [3, 17]
    assert out.isnan().all(dim=1).nonzero().flatten().tolist() == [3, 17]


@every_operator
@pytest.mark.parametrize("power", [-120, -60, 60, 110])
def test_scaling_a_row_by_a_power_of_two_scales_its_result_exactly(operator, power):
    x, weight, topology = operator.problem()
    out = operator.call(x, weight, topology)
    scaled = operator.call(x * 2.0**power, weight, topology)
    assert scaled.isfinite().all()
    assert relative_error(double(scaled) * 2.0**-power, double(out)) < 1e-7


@every_operator
def test_any_leading_shape(operator):
    x, weight, topology = operator.problem(24)
    out = operator.call(x, weight, topology)
    assert same_bits([operator.call(x[5], weight, topology)], [out[5]])
    assert same_bits([operator.call(x.reshape(2, 3, 4, -1), weight, topology)], [out.reshape(2, 3, 4, -1)])
    for shape in ((0, 33), (2, 0, 33)):
        empty, grad, grad_weight = operator.gradients(x.new_empty(shape), weight, topology, x.new_empty(shape))
        assert empty.shape == grad.shape == shape
        assert grad_weight.tolist() == [0] * topology.num_edges


@every_operator
def test_layout_of_the_inputs_does_not_matter(operator):
    x, weight, topology = operator.problem(24)
    cotangent = rows(*x.shape, operator.dtype, seed=1)
    expected = operator.gradients(x, weight, topology, cotangent)
    strided = torch.stack([x, x], dim=-1)[..., 1]
    assert same_bits(operator.gradients(strided, weight, topology, cotangent), expected)
    transposed = x.T.contiguous().T
    spread = torch.stack([weight, weight], dim=1)[:, 0]
    assert same_bits(operator.gradients(transposed, spread, topology, cotangent.T.contiguous().T), expected)
    same_row = x[:1].expand(24, -1)
    assert same_bits(
        [operator.call(same_row, weight, topology)], [operator.call(same_row.contiguous(), weight, topology)]
    )


@complex_operators
def test_lazily_conjugated_and_negated_inputs(operator):
    x, weight, topology = operator.problem()
    conjugated, negated = x.conj(), torch._neg_view(x)
    assert conjugated.is_conj() and negated.is_neg()
    for view in (conjugated, negated):
        assert same_bits([operator.call(view, weight, topology)], [operator.call(view.clone(), weight, topology)])


@every_operator
def test_a_graph_of_one_node_and_a_graph_without_edges(operator):
    for topology in (Topology(1, []), Topology(5, [])):
        x = rows(3, topology.nodes, operator.dtype)
        out, grad, grad_weight = operator.gradients(x, torch.empty(0), topology, torch.ones_like(x))
        exact = operator.twin(double(x), torch.empty(0, dtype=torch.float64), topology)
        assert relative_error(out, exact) < 1e-6
        assert grad.isfinite().all()
        assert grad_weight.shape == (0,)


@every_operator
def test_compile_fullgraph(operator):
    x, weight, topology = operator.problem()
    cotangent = rows(*x.shape, operator.dtype, seed=1)
    torch.compiler.reset()
    compiled = torch.compile(lambda x, w: operator.call(x, w, topology), fullgraph=True, backend="aot_eager")
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = compiled(*leaves)
    grads = torch.autograd.grad(out, leaves, cotangent)
    assert same_bits((out.detach(), *grads), operator.gradients(x, weight, topology, cotangent))


@every_operator
def test_func_grad_and_jacrev(operator):
    x, weight, topology = operator.problem(4, 9)
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    expected = torch.autograd.grad(real_loss(operator.call(*leaves, topology)), leaves)

    def loss(x, w):
        return real_loss(operator.call(x, w, topology))

    assert same_bits(torch.func.grad(loss, argnums=(0, 1))(x, weight), expected)
    jacobian = torch.func.jacrev(lambda w: torch.view_as_real(operator.call(x, w, topology) + 0j).flatten())(weight)
    out = torch.view_as_real(operator.call(x, weight, topology) + 0j).flatten()
    cos = out.cos() if operator.dtype.is_complex else out.cos().view(-1, 2).mul(torch.tensor([1.0, 0.0])).flatten()
    torch.testing.assert_close(cos @ jacobian, expected[1], rtol=1e-4, atol=1e-5)


@every_operator
def test_vmap_over_rows_weights_and_gradients(operator):
    x, weight, topology = operator.problem(6, 9)
    out = operator.call(x, weight, topology)
    assert same_bits([torch.vmap(lambda row: operator.call(row, weight, topology))(x)], [out])
    batches = x.reshape(3, 2, 9)
    assert same_bits(
        [torch.vmap(lambda b: operator.call(b, weight, topology), in_dims=1)(batches)],
        [out.reshape(3, 2, 9).transpose(0, 1)],
    )

    many = torch.stack([weight, 2 * weight, weight + 0.5])
    each = torch.stack([operator.call(x, w, topology) for w in many])
    assert same_bits([torch.vmap(lambda w: operator.call(x, w, topology))(many)], [each])

    def loss(w, b):
        return real_loss(operator.call(b, w, topology))

    per_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, batches)
    expected = torch.stack([torch.func.grad(loss)(weight, batch) for batch in batches])
    assert same_bits([per_sample], [expected])
    both = torch.vmap(torch.func.grad(loss))(many, batches)
    expected = torch.stack([torch.func.grad(loss)(w, b) for w, b in zip(many, batches, strict=True)])
    assert same_bits([both], [expected])


@every_operator
def test_forward_mode_raises(operator):
    x, weight, topology = operator.problem()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        operator.call(forward_ad.make_dual(x, torch.ones_like(x)), weight, topology)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda w: operator.call(x, w, topology), (weight,), (weight,))


@every_solver
def test_second_derivatives_raise_instead_of_missing_terms(operator):
    x, weight, topology = operator.problem()
    x.requires_grad_()
    loss = real_loss(operator.call(x, weight, topology))
    (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="only first derivatives.*sem.ops.reference"):
        (grad.abs().sum() + x.abs().sum()).backward()


@given(
    case=st.sampled_from(OPERATORS),
    nodes=st.integers(2, 40),
    tokens=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_relabelling_the_nodes_relabels_the_result(case, nodes, tokens, seed):
    x, topology = rows(tokens, nodes, case.dtype, seed), graph(nodes, seed=seed % 3)
    weight = weights(topology, seed)
    new_label = torch.randperm(nodes, generator=generator(seed))
    relabelled = Topology(nodes, new_label[topology.edges])
    moved = torch.empty_like(x)
    moved[:, new_label] = x
    out = case.call(moved, weight, relabelled)[:, new_label]
    assert relative_error(out, double(case.call(x, weight, topology))) < 1e-5
