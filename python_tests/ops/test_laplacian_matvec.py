import pytest
import torch
from helpers import (
    NODES,
    TOKENS,
    double,
    graph,
    relative_error,
    rows,
    sparse_laplacian,
    weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sem.ops import Topology, laplacian_matvec, reference
from sem.ops.laplacian_matvec import laplacian_matvec_forward, laplacian_matvec_weight_gradient

VALUE, GRADIENT = 2e-6, 1e-5
PATH, PATH_WEIGHT = Topology(3, [(0, 1), (1, 2)]), torch.tensor([2.0, 3.0])


def test_by_hand():
    assert laplacian_matvec(torch.tensor([1.0, 4.0, 10.0]), PATH_WEIGHT, PATH).tolist() == [-6.0, -12.0, 18.0]
    assert reference.laplacian_dense(PATH_WEIGHT, PATH).tolist() == [[2, -2, 0], [-2, 5, -3], [0, -3, 3]]


def test_gradients_by_hand():
    x = torch.tensor([1.0, 4.0, 10.0], requires_grad=True)
    weight = PATH_WEIGHT.clone().requires_grad_()
    laplacian_matvec(x, weight, PATH).backward(torch.tensor([1.0, 0.0, -1.0]))
    assert x.grad.tolist() == [2.0, 1.0, -3.0]
    assert weight.grad.tolist() == [-3.0, -6.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=["real", "complex"])
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("nodes", NODES)
def test_values_and_gradients_match_the_float64_twin(nodes, tokens, dtype):
    topology = graph(nodes)
    x, weight = rows(tokens, nodes, dtype).requires_grad_(), weights(topology).requires_grad_()
    cotangent = rows(tokens, nodes, dtype, seed=1)
    out = laplacian_matvec(x, weight, topology)
    out.backward(cotangent)

    exact_x, exact_weight = double(x).requires_grad_(), double(weight).requires_grad_()
    exact = reference.laplacian_matvec(exact_x, exact_weight, topology)
    exact.backward(double(cotangent))
    assert out.dtype == dtype and out.shape == x.shape
    assert relative_error(out, exact.detach()) <= VALUE
    assert relative_error(x.grad, exact_x.grad) <= GRADIENT
    norm_of_h = 2 * float(reference.laplacian_matvec(torch.eye(nodes), weight.detach(), topology).diagonal().max())
    error = (double(out) - exact.detach()).norm(dim=-1)
    assert (error <= VALUE * norm_of_h * double(x).norm(dim=-1)).all()
    assert relative_error(weight.grad, exact_weight.grad) <= GRADIENT


def test_the_twin_is_the_dense_matrix_and_the_sparse_one():
    topology = graph(17)
    x, weight = double(rows(4, 17, torch.float32)), double(weights(topology))
    dense = reference.laplacian_dense(weight, topology)
    assert relative_error(reference.laplacian_matvec(x, weight, topology), x @ dense) < 1e-14
    assert relative_error(sparse_laplacian(weight, topology).to_dense(), dense) < 1e-15


def test_second_derivatives_are_exact():
    topology = graph(9, degree=4)
    x, weight = rows(3, 9, torch.float32), weights(topology)

    def energy(matvec, x, weight):
        return matvec(matvec(x, weight, topology), weight, topology).sin().sum()

    def second(matvec, x, weight):
        x, weight = x.requires_grad_(), weight.requires_grad_()
        first = torch.autograd.grad(energy(matvec, x, weight), (x, weight), create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), (x, weight))

    exact = second(reference.laplacian_matvec, double(x), double(weight))
    for value, truth in zip(second(laplacian_matvec, x, weight), exact, strict=True):
        assert relative_error(value, truth) < GRADIENT


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("tokens", [0, 1, 17])
def test_opcheck(tokens, components):
    topology = graph(9)
    x = torch.randn(tokens, 9, components)
    packed = topology.packed(x.device)
    torch.library.opcheck(laplacian_matvec_forward.op, (x, weights(topology), packed, False))
    torch.library.opcheck(laplacian_matvec_weight_gradient.op, (x, torch.randn_like(x), packed))


@given(nodes=st.integers(2, 50), tokens=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_symmetric_semidefinite_and_blind_to_constants(nodes, tokens, seed):
    topology = graph(nodes, seed=seed % 3)
    weight = weights(topology, seed)
    x, y = rows(tokens, nodes, torch.float32, seed), rows(tokens, nodes, torch.float32, seed + 1)
    hx, hy = laplacian_matvec(x, weight, topology), laplacian_matvec(y, weight, topology)
    size = float(hx.norm() * y.norm() + hy.norm() * x.norm())
    assert abs(float((double(hx) * double(y)).sum() - (double(x) * double(hy)).sum())) <= 1e-6 * size
    assert ((double(hx) * double(x)).sum(1) >= -1e-6 * size).all()
    level = x[:, :1].expand(-1, nodes)
    largest = 2 * float(weight.sum())
    assert (laplacian_matvec(level, weight, topology).norm(dim=1) <= 1e-6 * largest * level.norm(dim=1)).all()
    assert (double(hx).sum(1).abs() <= 1e-6 * largest * x.norm(dim=1)).all()


@given(nodes=st.integers(2, 50), tokens=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_weight_gradient_is_the_adjoint_of_the_product_in_the_weights(nodes, tokens, seed):
    topology = graph(nodes, seed=seed % 3)
    direction, x = weights(topology, seed), rows(tokens, nodes, seed=seed)
    cotangent = rows(tokens, nodes, seed=seed + 1)
    weight = torch.zeros(topology.num_edges, requires_grad=True)
    laplacian_matvec(x, weight, topology).backward(cotangent)
    forward = laplacian_matvec(x, direction, topology)
    left = (double(forward).conj() * double(cotangent)).real.sum()
    right = double(weight.grad) @ double(direction)
    assert abs(float(left - right)) <= 1e-6 * float(forward.norm() * cotangent.norm())
