"""The head of amplitudes: probabilities of the next token are squared moduli of ``W psi``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.layers import complex_of, interleaved, pair_sum, real_matrix
from sem.ops.born_step import born_step
from sem.ops.kernels import takes_step
from sem.sampler.chunked import Chunk, HeadGradients, HeadLoss, SoftTargets, chunked_loss

_FLOOR = 1e-6


class BornWeights(NamedTuple):
    """A Born head as it is computed: ``matrix [vocab_size, 2 dim]``, re and im of each entry side by side."""

    matrix: Tensor
    bias: Tensor

    def log_probabilities(self, psi: Tensor) -> Tensor:
        """Of the wave ``psi``, complex64 ``[..., dim]``."""
        psi = psi.resolve_conj()
        blocks = torch.view_as_real(psi)
        if psi.dim() == 2 and takes_step(blocks):
            return born_step(blocks.contiguous(), self.matrix, self.bias, _FLOOR)
        # both parts of W psi from W as it lies: its real matrix would cost a token at a time more than the product
        turned = torch.stack([torch.view_as_real(psi.conj_physical()), blocks.flip(-1)]).flatten(-2)
        power = functional.linear(turned, self.matrix).float().square().sum(0)
        return _floored_log(power, self.bias).log_softmax(-1)


class BornHead(nn.Module):
    """``P(v) = |amp_v|^2 / sum |amp|^2`` with ``amp = W psi``; ``psi`` complex64 ``[..., dim]``.

    A floor of 1e-6 of the mean probability keeps the gradient of rare tokens alive; a learned bias acts in the log.
    No ``[tokens, vocab]`` tensor outlives a chunk in :meth:`loss`.

    Args:
        dim: channels of the wave. vocab_size: ``V``.
        chunk_tokens: tokens whose ``[chunk, V]`` amplitudes exist at a time in :meth:`loss`.

    Example:
        >>> head, psi = BornHead(16, 260), torch.randn(2, 5, 16, dtype=torch.complex64)
        >>> head(psi).exp().sum(-1).allclose(torch.ones(2, 5))
        True
    """

    def __init__(self, dim: int, vocab_size: int, chunk_tokens: int = 2048) -> None:
        super().__init__()
        self.chunk_tokens = chunk_tokens
        # W = weight / sqrt(V): for a wave of unit RMS, sum |amp|^2 starts near 1 and the unitary divergence near 0,
        # while the parameter's entries stay of the size that a learning rate is meant for
        self.weight = nn.Parameter(torch.randn(vocab_size, dim, 2) / (2 * dim) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.bias._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, psi: Tensor) -> Tensor:
        """Log-probabilities, float32 ``[..., vocab_size]``."""
        return self.weights().log_probabilities(psi)

    def weights(self) -> BornWeights:
        """What the head computes with, from its parameters."""
        return BornWeights(self.weight.flatten(1), self.bias)

    def loss(self, psi: Tensor, targets: Tensor, unitary_lambda: float, soft: SoftTargets | None = None) -> HeadLoss:
        """Mean negative log-likelihood (nats per target) plus ``unitary_lambda`` times the unitary divergence.

        ``psi`` complex64 ``[..., dim]``, ``targets`` int64 ``[...]``; -100 is ignored. The unitary divergence is the
        mean over tokens of ``log(sum_v |amp_v|^2)^2``. With ``soft``, see :func:`~sem.sampler.chunked.chunked_loss`.
        """
        matrix = real_matrix(self.weight)
        return chunked_loss(_chunk_loss, psi, matrix, self.bias, targets, unitary_lambda, self.chunk_tokens, soft)


def _floored_log(power: Tensor, bias: Tensor) -> Tensor:
    """Unnormalised log-probabilities of ``power [..., V]``."""
    raised = power.add(power.mean(-1, keepdim=True), alpha=_FLOOR)
    return raised.clamp_min(torch.finfo(power.dtype).tiny).log() + bias


def _chunk_loss(given: Chunk, piece: slice, grads: HeadGradients | None) -> tuple[Tensor, Tensor, Tensor | float]:
    """The :data:`~sem.sampler.chunked.ChunkLoss` of amplitudes; ``matrix [2 V, 2 dim]`` is the real one of ``W``.

    With ``p_v = |amp_v|^2 / V``, ``q_v = p_v + floor`` and a bias ``b``, the likelihood of v is ``q_v e^{b_v}`` over
    its sum: one logarithm per token, not one per entry, and a gradient to ``q_v`` that is the same ``e^{b_v} / sum``
    for all tokens but for a factor, plus ``-1 / q_v`` at the target.
    """
    rows, matrix, bias, target, counts, nll_weight, spread_weight, soft = given
    vocab, tiny = len(bias), torch.finfo(bias.dtype).tiny
    amplitudes = (rows @ matrix.T).float()
    power = pair_sum(amplitudes.square()).div_(vocab)
    total = power.sum(-1, keepdim=True)
    floored = power.add_(total * (_FLOOR / vocab)).clamp_min_(tiny)

    compared, grad_soft = (0.0, None) if soft is None else soft.compare(floored.log() + bias, counts)
    if grad_soft is not None and grads is not None:
        grads.bias.add_(grad_soft.sum(0))
        grad_soft /= floored  # of the logarithms, now of what they are taken of
    at_target = floored.gather(1, target)
    peak = bias.max()
    factor = (bias - peak).exp()
    likelihood = floored.mul_(factor)
    normaliser = likelihood.sum(-1, keepdim=True)
    nll = normaliser.log() + peak - at_target.log() - bias[target]
    log_total = total.clamp_min(tiny).log()
    sums = nll.where(counts, 0).sum(), log_total.square().sum(), compared
    if grads is None:
        return sums

    each = counts * nll_weight
    common, own = each / normaliser, each / at_target
    grads.bias.add_((likelihood.mul_(common)).sum(0)).index_add_(0, target.flatten(), each.flatten(), alpha=-1)
    spread = (2 * spread_weight) * log_total / total + (common * factor.sum() - own) * (_FLOOR / vocab)
    grad_power = torch.addcmul(spread.where(total >= tiny, 0), common, factor).scatter_add_(1, target, -own)
    if grad_soft is not None:
        grad_power += grad_soft.add_(grad_soft.sum(-1, keepdim=True) * (_FLOOR / vocab))
    grad_amplitudes = interleaved(complex_of(amplitudes) * grad_power.mul_(2 / vocab)).to(rows.dtype)
    grads.blocks[piece] = grad_amplitudes @ matrix
    grads.matrix.add_(grad_amplitudes.T @ rows)
    return sums
