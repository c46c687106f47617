import math

import pytest
import torch
from torch.nn import functional

from sem.sampler import CoherentHead


@pytest.fixture
def problem():
    torch.manual_seed(0)
    head = CoherentHead(8, 11, chunk_tokens=3)
    with torch.no_grad():
        head.bias.add_(0.3 * torch.randn(11))
    psi = torch.randn(2, 5, 8, dtype=torch.complex64, requires_grad=True)
    return head, psi, torch.randint(11, (2, 5))


def logits_of(head, psi):
    states = torch.view_as_complex(head.weight.double())
    return 2 * (psi.to(torch.complex128) @ states.conj().T).real + head.bias.double()


def test_probabilities_are_overlaps_of_coherent_states(problem):
    """|<w|psi>|^2 from the states' series over numbers of quanta, not from its closed form."""
    head, _, _ = problem
    w, psi = torch.view_as_complex(head.weight.detach().double()), 0.3 * torch.randn(8, dtype=torch.complex128)
    numbers = torch.arange(30, dtype=torch.float64)
    scale = (torch.lgamma(numbers + 1) / 2).exp()

    def state(amplitude):
        return (torch.exp(-amplitude.abs().square() / 2).unsqueeze(-1) * amplitude.unsqueeze(-1).pow(numbers)) / scale

    overlap = torch.stack([(state(v).conj() * state(psi)).sum(-1).prod().abs().square() for v in w])
    weights = overlap * (head.bias.detach().double() + w.abs().square().sum(-1)).exp()
    expected = (weights / weights.sum()).log()
    torch.testing.assert_close(head(psi.to(torch.complex64)).double(), expected, rtol=0, atol=1e-5)


def test_loss_and_gradients_are_those_of_the_whole(problem):
    head, psi, targets = problem
    targets[0, 2] = -100
    logits = logits_of(head, psi)
    log_total = logits.logsumexp(-1)
    nll = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    whole = nll / 9 + 0.3 * log_total.square().mean()
    expected = torch.autograd.grad(whole, [psi, head.weight, head.bias])
    found = head.loss(psi, targets, unitary_lambda=0.3)
    torch.testing.assert_close(found.loss.double(), whole)
    torch.testing.assert_close(found.nll_sum.double(), nll)
    torch.testing.assert_close(found.unitary_divergence.double(), log_total.square().mean())
    got = torch.autograd.grad(2 * found.loss, [psi, head.weight, head.bias])
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, 2 * theirs.to(ours.dtype), rtol=1e-4, atol=1e-5)


def test_it_can_be_certain_of_more_tokens_than_it_has_channels():
    """Amplitudes cannot: the sum over tokens of each one's largest probability is at most the width."""
    head = CoherentHead(1, 9)
    angles = 2 * math.pi * torch.arange(9) / 9
    with torch.no_grad():
        head.weight.copy_(torch.stack([angles.cos(), angles.sin()], -1).unsqueeze(1))
        head.bias.zero_()
    psi = 100 * torch.polar(torch.ones(9), angles).unsqueeze(1)
    assert float(head(psi).exp().diagonal().min()) > 0.999


def test_unitary_divergence_starts_near_zero():
    torch.manual_seed(0)
    head = CoherentHead(64, 260)
    psi = torch.randn(1, 50, 64, dtype=torch.complex64)
    divergence = head.loss(psi, torch.zeros(1, 50, dtype=torch.long), 0.1).unitary_divergence
    assert float(divergence) < 0.1


def test_extreme_waves_and_biases_leave_loss_and_gradients_finite(problem):
    head, psi, targets = problem
    with torch.no_grad():
        psi[0, 1] = 0
        psi[1, 2] *= 1e4
        head.bias[3] = 200.0
    found = head.loss(psi, targets, 0.1)
    for grad in torch.autograd.grad(found.loss, [psi, head.weight, head.bias]):
        assert torch.isfinite(torch.view_as_real(grad) if grad.is_complex() else grad).all()


def test_loss_without_gradient(problem):
    head, psi, targets = problem
    with torch.no_grad():
        quiet = head.loss(psi, targets, 0.1)
    torch.testing.assert_close(quiet.loss, head.loss(psi, targets, 0.1).loss.detach())
    assert not quiet.loss.requires_grad


def test_no_tensor_of_tokens_by_vocabulary_is_kept():
    head = CoherentHead(2, 50, chunk_tokens=8)
    psi = torch.randn(400, 2, dtype=torch.complex64, requires_grad=True)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        head.loss(psi, torch.zeros(400, dtype=torch.long), 0.1)
    assert max(sizes) < 400 * 50 / 10
