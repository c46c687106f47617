import torch

from sem.ops.reference import laplacian_dense
from sem.propagator import GraphLaplacianHamiltonian, MultiScaleHamiltonian


def test_scales_add_up():
    torch.manual_seed(0)
    merged = MultiScaleHamiltonian(32, sparsity=4, num_scales=2, seed=3)
    singles = [GraphLaplacianHamiltonian(32, 4, seed=3), GraphLaplacianHamiltonian(32, 8, seed=4)]
    first = singles[0].topology.num_edges
    with torch.no_grad():
        merged.scale_logits.copy_(torch.tensor([0.3, -0.5]))
        singles[0].raw_weight.copy_(merged.raw_weight[:first])
        singles[1].raw_weight.copy_(merged.raw_weight[first:])
    shares = merged.scale_logits.softmax(0)
    expected = sum(
        share * laplacian_dense(single.edge_weight(), single.topology)
        for share, single in zip(shares, singles, strict=True)
    )
    torch.testing.assert_close(laplacian_dense(merged.edge_weight(), merged.topology), expected)


def test_weights_are_positive_and_the_matrix_is_a_laplacian():
    h = MultiScaleHamiltonian(24)
    dense = laplacian_dense(h.edge_weight(), h.topology).double()
    assert bool((h.edge_weight() > 0).all())
    torch.testing.assert_close(dense, dense.T)
    assert float(dense.sum(1).abs().max()) < 1e-5
    assert float(torch.linalg.eigvalsh(dense).min()) > -1e-5
    x = torch.randn(5, 24, dtype=torch.complex64)
    torch.testing.assert_close(h(x), (dense.to(torch.complex128) @ x.T.to(torch.complex128)).T.to(x.dtype))


def test_long_range_edges_exist_at_even_sparsity():
    h = GraphLaplacianHamiltonian(64, sparsity=8, long_range_share=0.25)
    i, j = h.topology.edges.unbind(1)
    distance = torch.minimum(j - i, 64 - (j - i))
    assert int((distance > 3).sum()) >= 64 * 4 // 4 - 8
    assert torch.equal(torch.tensor([int((distance == k).sum()) for k in (1, 2, 3)]), torch.tensor([64, 64, 64]))


def test_small_widths_fit():
    for dim in (1, 2, 3, 8):
        h = MultiScaleHamiltonian(dim)
        assert h(torch.randn(2, dim)).shape == (2, dim)
