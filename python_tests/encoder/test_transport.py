import math

import pytest
import torch

from sem.encoder import online_transport, sparsify


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
