import pytest
import torch

from sem.sampler import BornHead


@pytest.fixture
def problem():
    torch.manual_seed(0)
    head = BornHead(8, 11, chunk_tokens=3)
    with torch.no_grad():
        head.bias.normal_(std=0.3)
    psi = torch.randn(2, 5, 8, dtype=torch.complex64, requires_grad=True)
    return head, psi, torch.randint(11, (2, 5))


def weights_of(head, psi):
    amplitude = psi.to(torch.complex128) @ torch.view_as_complex(head.weight.double()).T / len(head.weight) ** 0.5
    power = amplitude.abs().square()
    floored = power + 1e-6 * power.mean(-1, keepdim=True)
    return floored.log() + head.bias.double(), power.sum(-1).log()


def test_probabilities_are_borns(problem):
    head, psi, _ = problem
    expected = weights_of(head, psi)[0].log_softmax(-1)
    torch.testing.assert_close(head(psi).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head(psi).exp().sum(-1), torch.ones(2, 5))


def test_loss_and_gradients_are_those_of_the_whole(problem):
    head, psi, targets = problem
    targets[0, 2] = -100
    log_weights, log_total = weights_of(head, psi)
    nll = torch.nn.functional.cross_entropy(log_weights.flatten(0, 1), targets.flatten(), reduction="sum")
    whole = nll / 9 + 0.3 * log_total.square().mean()
    expected = torch.autograd.grad(whole, [psi, head.weight, head.bias])
    born = head.loss(psi, targets, unitary_lambda=0.3)
    torch.testing.assert_close(born.loss.double(), whole)
    torch.testing.assert_close(born.nll_sum.double(), nll)
    torch.testing.assert_close(born.unitary_divergence.double(), log_total.square().mean())
    got = torch.autograd.grad(2 * born.loss, [psi, head.weight, head.bias])
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, 2 * theirs.to(ours.dtype), rtol=1e-4, atol=1e-5)


def test_loss_without_gradient(problem):
    head, psi, targets = problem
    with torch.no_grad():
        quiet = head.loss(psi, targets, 0.1)
    torch.testing.assert_close(quiet.loss, head.loss(psi, targets, 0.1).loss.detach())
    assert not quiet.loss.requires_grad


def test_no_tensor_of_tokens_by_vocabulary_is_kept():
    head = BornHead(2, 50, chunk_tokens=8)
    psi = torch.randn(400, 2, dtype=torch.complex64, requires_grad=True)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        head.loss(psi, torch.zeros(400, dtype=torch.long), 0.1)
    assert max(sizes) < 400 * 50 / 10


def test_unitary_divergence_starts_near_zero():
    torch.manual_seed(0)
    head = BornHead(64, 260)
    psi = torch.randn(1, 50, 64, dtype=torch.complex64)
    divergence = head.loss(psi, torch.zeros(1, 50, dtype=torch.long), 0.1).unitary_divergence
    assert float(divergence) < 0.1


def test_a_wave_of_zeros_and_extreme_biases_leave_the_gradients_finite(problem):
    head, psi, targets = problem
    with torch.no_grad():
        psi[0, 1] = 0
        head.bias[3] = 200.0
    born = head.loss(psi, targets, 0.1)
    for grad in torch.autograd.grad(born.loss, [psi, head.weight, head.bias]):
        assert torch.isfinite(torch.view_as_real(grad) if grad.is_complex() else grad).all()
    expected = head(psi).gather(-1, targets.unsqueeze(-1)).sum()
    torch.testing.assert_close(born.nll_sum, -expected.detach())
