import math

import pytest
import torch

from sem.encoder import (
    MeshSDREncoder,
    continue_transport,
    online_transport,
    sparsify,
    transport_kernel,
    transport_start,
)


def log_domain_transport(log_kernel, prior_rows, tol, max_iter):
    """The iteration as its definition reads: potentials in the log domain, one row and one prefix at a time."""
    batch, length, columns = log_kernel.shape
    plan = torch.empty_like(log_kernel)
    for b in range(batch):
        u = torch.zeros(length, dtype=log_kernel.dtype)
        v = torch.zeros(length, columns, dtype=log_kernel.dtype)
        frozen = [False] * length
        previous = [math.inf] * length
        for _ in range(max_iter):
            for t in range(length):
                if not frozen[t]:
                    u[t] = -torch.logsumexp(log_kernel[b, t] + v[t], 0)
                    frozen[t] = abs(float(u[t]) - previous[t]) <= tol
                    previous[t] = float(u[t])
            for t in range(length):
                prefix = torch.exp(log_kernel[b, : t + 1] + u[: t + 1, None]).sum(0)
                v[t] = -torch.log((prior_rows / columns + prefix) * columns / (prior_rows + t + 1))
            if all(frozen):
                break
        plan[b] = torch.softmax(log_kernel[b] + v, -1)
    return plan


def test_matches_the_definition():
    torch.manual_seed(0)
    log_kernel = torch.randn(2, 9, 7, dtype=torch.float64)
    result = online_transport(log_kernel, 4.0, 1e-6, 50)
    expected = log_domain_transport(log_kernel, 4.0, 1e-6, 50)
    assert bool(result.converged.all())
    torch.testing.assert_close(result.plan, expected, rtol=1e-9, atol=1e-12)


def test_rows_sum_to_one_and_columns_balance_as_the_sequence_grows():
    torch.manual_seed(0)
    log_kernel = torch.randn(1, 400, 16) + torch.linspace(-1, 1, 16)  # some columns are preferred by every row
    plan = online_transport(log_kernel, 16.0, 1e-4, 100).plan
    torch.testing.assert_close(plan.sum(-1), torch.ones(1, 400))
    load = plan[0].mean(0) * 16
    free = log_kernel.softmax(-1)[0].mean(0) * 16
    assert (load - 1).abs().max() < 0.25 * (free - 1).abs().max()


def test_row_converges_by_itself():
    torch.manual_seed(0)
    log_kernel = torch.randn(3, 20, 8)
    together = online_transport(log_kernel, 16.0, 1e-3, 50)
    for b in range(3):
        alone = online_transport(log_kernel[b : b + 1], 16.0, 1e-3, 50)
        assert torch.equal(alone.plan[0], together.plan[b])
        assert torch.equal(alone.iterations[0], together.iterations[b])


def test_later_rows_do_not_matter():
    torch.manual_seed(0)
    log_kernel = torch.randn(2, 30, 8)
    changed = log_kernel.clone()
    changed[:, 17:] = 5 * torch.randn(2, 13, 8)
    before = online_transport(log_kernel, 16.0, 1e-3, 50).plan
    after = online_transport(changed, 16.0, 1e-3, 50).plan
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.equal(before[:, 17:], after[:, 17:])


def in_pieces(log_kernel, tol, max_iter, sizes):
    state = transport_start(len(log_kernel), log_kernel.shape[-1], max_iter)
    pieces = []
    for piece in log_kernel.split(sizes, 1):
        plan, state = continue_transport(transport_kernel(piece), 16.0, tol, state)
        pieces.append(plan)
    return torch.cat(pieces, 1), state


@pytest.mark.parametrize("sizes", [1, 7, [29, 1, 31]])
@pytest.mark.parametrize(("tol", "max_iter"), [(1e-3, 50), (1e-9, 3), (0.5, 50)])
def test_rows_in_pieces_are_the_rows_of_one_call(sizes, tol, max_iter):
    torch.manual_seed(0)
    log_kernel = torch.randn(2, 61, 13)
    log_kernel[:, 20] *= 9  # one slow row: those behind it run fewer rounds than it did
    whole = online_transport(log_kernel, 16.0, tol, max_iter)
    plan, state = in_pieces(log_kernel, tol, max_iter, sizes)
    torch.testing.assert_close(plan, whole.plan, rtol=3e-6, atol=1e-8)
    assert state.loads.shape == (2, max_iter, 13) and state.rows.tolist() == [61, 61]


def test_sums_over_many_rows_lose_nothing():
    torch.manual_seed(0)
    log_kernel = torch.rand(1, 5000, 3)
    _, state = in_pieces(log_kernel, 1e-3, 1, 1)  # one round: a row puts its softmax on the columns
    exact = log_kernel.double().softmax(-1).sum(1)
    torch.testing.assert_close(state.loads[:, 0].double(), exact, rtol=2e-7, atol=0)


def test_encoder_continues_a_sequence():
    torch.manual_seed(0)
    encoder = MeshSDREncoder(50, 12, candidates=11, sparsity=5, projection_dim=7).eval()
    tokens = torch.randint(50, (3, 40))
    whole = encoder(tokens)
    state, weights = encoder.start(3), encoder.weights()
    waves = []
    for piece in tokens.split([1, 1, 30, 8], 1):
        wave, state = encoder.advance(piece, state, weights)
        waves.append(wave)
    torch.testing.assert_close(torch.cat(waves, 1), whole, rtol=1e-4, atol=1e-5)
    fresh, _ = encoder.advance(tokens[:, 1:2], encoder.start(3), weights)
    assert (fresh - whole[:, 1:2]).abs().max() > 1e-2  # the position and the past matter


def test_sharp_costs_stay_finite_and_are_reported():
    torch.manual_seed(0)
    log_kernel = (300 * torch.randn(1, 50, 8)).requires_grad_()
    result = online_transport(log_kernel, 16.0, 1e-3, 5)
    result.plan.square().sum().backward()
    assert torch.isfinite(result.plan).all() and torch.isfinite(log_kernel.grad).all()
    assert not bool(result.converged.all())


def test_gradient():
    torch.manual_seed(0)
    log_kernel = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: online_transport(k, 4.0, 1e-13, 6).plan, (log_kernel,))


@pytest.mark.parametrize("k", [2, 5, 8])
def test_sparsify_keeps_at_most_k_minus_one(k):
    torch.manual_seed(0)
    plan = torch.rand(4, 6, 8)
    sparse = sparsify(plan, k)
    assert int((sparse > 0).sum(-1).max()) == k - 1
    kept = sparse > 0
    threshold = plan.sort(-1, descending=True).values[..., k - 1 : k]
    torch.testing.assert_close(sparse[kept], (plan - threshold)[kept])
