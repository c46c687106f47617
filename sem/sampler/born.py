"""The Born head: probabilities of the next token are squared moduli of amplitudes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sem.layers import complex_of, interleaved, pair_sum, real_matrix
from sem.ops.born_step import born_step
from sem.ops.kernels import takes_step
from sem.precision import product_dtype

_FLOOR = 1e-6
IGNORED = -100


class BornLoss(NamedTuple):
    """0-d tensors. ``loss`` is what to differentiate; the others are reports without gradient."""

    loss: Tensor
    nll_sum: Tensor
    unitary_divergence: Tensor


class HeadWeights(NamedTuple):
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

    def weights(self) -> HeadWeights:
        """What the head computes with, from its parameters."""
        return HeadWeights(self.weight.flatten(1), self.bias)

    def loss(self, psi: Tensor, targets: Tensor, unitary_lambda: float) -> BornLoss:
        """Mean negative log-likelihood (nats per target) plus ``unitary_lambda`` times the unitary divergence.

        ``psi`` complex64 ``[..., dim]``, ``targets`` int64 ``[...]``; -100 is ignored. The unitary divergence is the
        mean over tokens of ``log(sum_v |amp_v|^2)^2``.
        """
        blocks = torch.view_as_real(psi.resolve_conj()).reshape(-1, 2 * psi.shape[-1])
        return BornLoss(
            *_ChunkedLoss.apply(
                blocks,
                self.weight,
                self.bias,
                targets.reshape(-1),
                unitary_lambda,
                self.chunk_tokens,
                torch.is_grad_enabled(),
            )
        )


def _floored_log(power: Tensor, bias: Tensor) -> Tensor:
    """Unnormalised log-probabilities of ``power [..., V]``."""
    raised = power.add(power.mean(-1, keepdim=True), alpha=_FLOOR)
    return raised.clamp_min(torch.finfo(power.dtype).tiny).log() + bias


class _Gradients(NamedTuple):
    """Accumulated over chunks; ``matrix [2 V, 2 dim]`` is that of the weight's real matrix."""

    blocks: Tensor
    matrix: Tensor
    bias: Tensor


class _ChunkedLoss(Function):
    """The loss and its gradients chunk by chunk, both in the forward, so the memory of ``[tokens, V]`` is that of one
    chunk; the backward only scales.

    With ``p_v = |amp_v|^2 / V``, ``q_v = p_v + floor`` and a bias ``b``, the likelihood of v is ``q_v e^{b_v}`` over
    its sum: one logarithm per token, not one per entry, and a gradient to ``q_v`` that is the same ``e^{b_v} / sum``
    for all tokens but for a factor, plus ``-1 / q_v`` at the target.
    """

    @staticmethod
    def forward(
        ctx: Any,
        blocks: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        unitary_lambda: float,
        chunk: int,
        recording: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        counted = (targets != IGNORED).sum().clamp_min(1)
        tokens = max(blocks.shape[0], 1)
        matrix = real_matrix(weight)
        wants_grad = recording and any(ctx.needs_input_grad[:3])
        grads = None
        if wants_grad:
            grads = _Gradients(torch.empty_like(blocks), torch.zeros_like(matrix), torch.zeros_like(bias))
        nll_sum = blocks.new_zeros(())
        divergence = blocks.new_zeros(())
        for start in range(0, blocks.shape[0], chunk):
            piece = slice(start, start + chunk)
            nll, spread = _chunk(
                blocks, matrix, bias, targets, piece, 1 / counted, unitary_lambda / tokens, product_dtype(blocks), grads
            )
            nll_sum += nll
            divergence += spread / tokens
        if grads is not None:
            to_real, to_imag = torch.view_as_complex(grads.matrix.view(len(weight), 2, -1, 2)).unbind(1)
            grad_weight = torch.view_as_real((to_real - 1j * to_imag).conj_physical_())
            ctx.save_for_backward(grads.blocks, grad_weight, grads.bias)
        loss = nll_sum / counted + unitary_lambda * divergence
        ctx.mark_non_differentiable(nll_sum, divergence)
        return loss, nll_sum, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        return *(held * grad for held in ctx.saved_tensors), None, None, None, None


def _chunk(
    blocks: Tensor,
    matrix: Tensor,
    bias: Tensor,
    targets: Tensor,
    piece: slice,
    nll_weight: Tensor,
    spread_weight: float,
    dtype: torch.dtype,
    grads: _Gradients | None,
) -> tuple[Tensor, Tensor]:
    """Sums over the tokens of ``piece``, of the negative log-likelihood and of the squared log of the total; their
    weighted gradients are put into, or on top of, ``grads``."""
    vocab, tiny = len(bias), torch.finfo(blocks.dtype).tiny
    rows = blocks[piece].to(dtype)
    amplitudes = (rows @ matrix.to(dtype).T).float()
    power = pair_sum(amplitudes.square()).div_(vocab)
    total = power.sum(-1, keepdim=True)
    floored = power.add_(total * (_FLOOR / vocab)).clamp_min_(tiny)

    counts = (targets[piece] != IGNORED).unsqueeze(-1)
    target = targets[piece].unsqueeze(-1).where(counts, 0)
    at_target = floored.gather(1, target)
    peak = bias.max()
    factor = (bias - peak).exp()
    likelihood = floored.mul_(factor)
    normaliser = likelihood.sum(-1, keepdim=True)
    nll = normaliser.log() + peak - at_target.log() - bias[target]
    log_total = total.clamp_min(tiny).log()
    sums = nll.where(counts, 0).sum(), log_total.square().sum()
    if grads is None:
        return sums

    each = counts * nll_weight
    common, own = each / normaliser, each / at_target
    grads.bias.add_((likelihood.mul_(common)).sum(0)).index_add_(0, target.flatten(), each.flatten(), alpha=-1)
    spread = (2 * spread_weight) * log_total / total + (common * factor.sum() - own) * (_FLOOR / vocab)
    grad_power = torch.addcmul(spread.where(total >= tiny, 0), common, factor).scatter_add_(1, target, -own)
    grad_amplitudes = interleaved(complex_of(amplitudes) * grad_power.mul_(2 / vocab)).to(dtype)
    grads.blocks[piece] = grad_amplitudes @ matrix.to(dtype)
    grads.matrix.add_(grad_amplitudes.T @ rows)
    return sums
