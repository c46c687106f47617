"""What a teacher says, in the loss of either head, against the same in float64 over the whole alphabet at once."""

import pytest
import torch
from torch.nn import functional

from sem.sampler import BornHead, CoherentHead, SoftTargets

TEMPERATURE, WEIGHT, UNITARY = 2.5, 0.4, 0.3


@pytest.fixture(params=[CoherentHead, BornHead])
def problem(request):
    torch.manual_seed(0)
    head, teacher = request.param(8, 11, chunk_tokens=3), CoherentHead(6, 11)
    with torch.no_grad():
        head.bias.add_(0.3 * torch.randn(11))
        teacher.weight.mul_(3)
    psi = torch.randn(2, 5, 8, dtype=torch.complex64, requires_grad=True)
    targets = torch.randint(11, (2, 5))
    targets[0, 2] = -100
    soft = SoftTargets(torch.randn(2, 5, 6, dtype=torch.complex64), teacher.weights(), TEMPERATURE, WEIGHT)
    return head, psi, targets, soft


def whole(head, psi, targets, soft):
    """The loss and its soft part, summed, from log-probabilities of all tokens."""
    known = soft.head.log_probabilities(soft.states).double()
    learnt = head(psi).double()
    counts = targets != -100
    parts = [(values / soft.temperature).softmax(-1) for values in (known, learnt)]
    divergence = (parts[0] * (parts[0].log() - parts[1].log())).sum(-1)
    soft_sum = soft.temperature**2 * divergence[counts].sum()
    nll = functional.nll_loss(learnt[counts], targets[counts])
    spread = head.loss(psi, targets, 1.0).loss - head.loss(psi, targets, 0.0).loss  # which has tests of its own
    return (1 - soft.weight) * nll + soft.weight * soft_sum / counts.sum() + UNITARY * spread, soft_sum


def test_loss_and_gradients_are_those_of_the_whole(problem):
    head, psi, targets, soft = problem
    expected, soft_sum = whole(*problem)
    found = head.loss(psi, targets, UNITARY, soft)
    torch.testing.assert_close(found.loss.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.soft_sum.double(), soft_sum, rtol=1e-5, atol=1e-6)
    assert not found.soft_sum.requires_grad
    wanted = torch.autograd.grad(expected, [psi, head.weight, head.bias])
    got = torch.autograd.grad(found.loss, [psi, head.weight, head.bias])
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-5)
    with torch.no_grad():
        assert head.loss(psi, targets, UNITARY, soft).loss.equal(found.loss)


def test_a_teacher_without_weight_changes_nothing_but_what_is_told(problem):
    head, psi, targets, soft = problem
    plain, found = head.loss(psi, targets, UNITARY), head.loss(psi, targets, UNITARY, soft._replace(weight=0.0))
    assert plain.soft_sum is None and float(found.soft_sum) > 0
    torch.testing.assert_close(found.loss, plain.loss, rtol=1e-6, atol=0)
    for ours, theirs in zip(
        *(torch.autograd.grad(loss, [psi, head.bias]) for loss in (found.loss, plain.loss)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_model_that_is_its_own_teacher_has_nothing_to_learn_from_it(problem):
    head, psi, targets, _ = problem
    soft = SoftTargets(psi, head.weights(), TEMPERATURE, 1.0)
    found = head.loss(psi, targets, 0.0, soft)
    assert abs(float(found.loss)) < 1e-5
    for grad in torch.autograd.grad(found.loss, [psi, head.weight, head.bias]):
        assert float(grad.abs().max()) < 1e-5


def test_no_more_tokens_than_a_chunk_are_read_out_at_a_time(problem):
    head, psi, targets, soft = problem
    sizes = []

    class Watched:
        def log_probabilities(self, states):
            sizes.append(tuple(states.shape))
            return soft.head.log_probabilities(states)

    head.loss(psi, targets, UNITARY, soft._replace(head=Watched()))
    assert sizes == [(3, 6), (3, 6), (3, 6), (1, 6)]
