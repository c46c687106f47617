"""The head of coherent states: probabilities of the next token by Born's rule, without a bound on confidence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.precision import note_autocast, outside_autocast
from sem.sampler.chunked import Chunk, HeadGradients, HeadLoss, SoftTargets, chunked_loss

_GAIN = 0.35  # standard deviation of the logits at the start is 1.4 times this


class CoherentWeights(NamedTuple):
    """A coherent head as it is computed: ``matrix [vocab_size, 2 dim]`` on real blocks, the factor 2 in it."""

    matrix: Tensor
    bias: Tensor

    def log_probabilities(self, psi: Tensor) -> Tensor:
        """Of the wave ``psi``, complex64 ``[..., dim]``."""
        note_autocast("coherent head", psi.device.type)
        with outside_autocast(psi.device.type):
            blocks = torch.view_as_real(psi.resolve_conj()).flatten(-2)
            return functional.linear(blocks, self.matrix, self.bias).log_softmax(-1)


class CoherentHead(nn.Module):
    """``P(v) = |<w_v|psi>|^2 / sum_v |<w_v|psi>|^2`` where the wave and the tokens stand for coherent states.

    The overlap of the coherent states of amplitudes ``w`` and ``psi`` is
    ``|<w|psi>|^2 = exp(2 Re(w^H psi) - |w|^2 - |psi|^2)`` (R. J. Glauber, Physical Review 131, 1963), so that
    ``P(v) = softmax_v(2 Re(w_v^H psi) + b_v)``. The bias takes the place of ``-|w_v|^2`` and of what is learned beside
    it. It is computed in float32 whatever autocast says.

    Coherent states are over-complete: any probability can be reached, and no logarithm has a pole. Of squared
    amplitudes ``|W psi|^2``, the largest probabilities of the tokens, each at its best wave, sum to ``dim`` at most.

    Args:
        dim: channels of the wave. vocab_size: ``V``.
        chunk_tokens: tokens whose ``[chunk, V]`` overlaps exist at a time in :meth:`loss`.

    Example:
        >>> head, psi = CoherentHead(16, 260), torch.randn(2, 5, 16, dtype=torch.complex64)
        >>> head(psi).exp().sum(-1).allclose(torch.ones(2, 5))
        True
    """

    def __init__(self, dim: int, vocab_size: int, chunk_tokens: int = 2048) -> None:
        super().__init__()
        self.chunk_tokens = chunk_tokens
        self.weight = nn.Parameter(torch.randn(vocab_size, dim, 2) * (_GAIN / (2 * dim) ** 0.5))
        # the total under the softmax, whose logarithm the unitary divergence holds near 0, begins near 1
        self.bias = nn.Parameter(torch.full((vocab_size,), -math.log(vocab_size)))
        self.bias._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, psi: Tensor) -> Tensor:
        """Log-probabilities, float32 ``[..., vocab_size]``."""
        return self.weights().log_probabilities(psi)

    def weights(self) -> CoherentWeights:
        """What the head computes with, from its parameters; the entries of ``weight`` are those of the ``w_v``."""
        return CoherentWeights(2 * self.weight.flatten(1), self.bias)

    def loss(self, psi: Tensor, targets: Tensor, unitary_lambda: float, soft: SoftTargets | None = None) -> HeadLoss:
        """Mean negative log-likelihood (nats per target) plus ``unitary_lambda`` times the unitary divergence.

        ``psi`` complex64 ``[..., dim]``, ``targets`` int64 ``[...]``; -100 is ignored. The unitary divergence is the
        mean over tokens of ``log(sum_v exp(2 Re(w_v^H psi) + b_v))^2``. With ``soft``, see
        :func:`~sem.sampler.chunked.chunked_loss`.
        """
        note_autocast("coherent head", psi.device.type)
        with outside_autocast(psi.device.type):
            return chunked_loss(_chunk_loss, psi, *self.weights(), targets, unitary_lambda, self.chunk_tokens, soft)


def _chunk_loss(given: Chunk, piece: slice, grads: HeadGradients | None) -> tuple[Tensor, Tensor, Tensor | float]:
    """The :data:`~sem.sampler.chunked.ChunkLoss` of coherent states; ``matrix [V, 2 dim]``."""
    rows, matrix, bias, target, counts, nll_weight, spread_weight, soft = given
    logits = functional.linear(rows, matrix, bias)
    compared, grad_soft = (0.0, None) if soft is None else soft.compare(logits, counts)
    peak = logits.amax(-1, keepdim=True)
    at_target = logits.gather(1, target)
    likelihood = logits.sub_(peak).exp_()
    normaliser = likelihood.sum(-1, keepdim=True)
    log_total = normaliser.log() + peak
    sums = (log_total - at_target).where(counts, 0).sum(), log_total.square().sum(), compared
    if grads is None:
        return sums

    each = counts * nll_weight
    grad_logits = likelihood.mul_((each + (2 * spread_weight) * log_total) / normaliser)
    grad_logits.scatter_add_(1, target, -each)
    if grad_soft is not None:
        grad_logits += grad_soft
    grads.bias.add_(grad_logits.sum(0))
    torch.mm(grad_logits, matrix, out=grads.blocks[piece])
    grads.matrix.addmm_(grad_logits.T, rows)
    return sums
