"""The Born head: probabilities of the next token are squared moduli of amplitudes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sem.layers import pair_sum, real_matrix

_FLOOR = 1e-6
IGNORED = -100


class BornLoss(NamedTuple):
    """0-d tensors. ``loss`` is what to differentiate; the others are reports without gradient."""

    loss: Tensor
    nll_sum: Tensor
    unitary_divergence: Tensor


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
        real, imag = torch.view_as_real(psi).unbind(-1)
        # both parts of W psi from W as it lies: its real matrix would cost a token at a time more than the product
        turned = torch.stack([torch.stack([real, -imag], -1), torch.stack([imag, real], -1)]).flatten(-2)
        power = functional.linear(turned, self.weight.flatten(1)).float().square().sum(0) / len(self.weight)
        return _floored_log(power, self.bias)[0].log_softmax(-1)

    def loss(self, psi: Tensor, targets: Tensor, unitary_lambda: float) -> BornLoss:
        """Mean negative log-likelihood (nats per target) plus ``unitary_lambda`` times the unitary divergence.

        ``psi`` complex64 ``[..., dim]``, ``targets`` int64 ``[...]``; -100 is ignored. The unitary divergence is the
        mean over tokens of ``log(sum_v |amp_v|^2)^2``.
        """
        blocks = torch.view_as_real(psi).reshape(-1, 2 * psi.shape[-1])
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


def _log_weights(blocks: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Unnormalised log-probabilities ``[..., V]`` and ``log sum |amp|^2`` ``[...]``."""
    power = pair_sum(functional.linear(blocks, real_matrix(weight)).float().square()) / len(weight)
    return _floored_log(power, bias)


def _floored_log(power: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    total = power.sum(-1, keepdim=True)
    floor = total * (_FLOOR / power.shape[-1])
    tiny = torch.finfo(power.dtype).tiny
    return (power + floor).clamp_min(tiny).log() + bias, total.clamp_min(tiny).log().squeeze(-1)


class _ChunkedLoss(Function):
    """The loss and its gradients chunk by chunk: each chunk's graph is built, differentiated and dropped in the
    forward, so the memory of ``[tokens, V]`` is that of one chunk; the backward only scales."""

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
        wants_grad = recording and any(ctx.needs_input_grad[:3])
        grad_blocks = torch.empty_like(blocks) if wants_grad else None
        leaves = [weight.detach().requires_grad_(wants_grad), bias.detach().requires_grad_(wants_grad)]
        grads = [torch.zeros_like(weight), torch.zeros_like(bias)]
        nll_sum = blocks.new_zeros(())
        divergence = blocks.new_zeros(())
        tokens = max(blocks.shape[0], 1)
        for start in range(0, blocks.shape[0], chunk):
            stop = start + chunk
            piece = blocks[start:stop].detach().requires_grad_(wants_grad)
            with torch.set_grad_enabled(wants_grad):
                log_weights, log_total = _log_weights(piece, *leaves)
                nll = functional.cross_entropy(log_weights, targets[start:stop], ignore_index=IGNORED, reduction="sum")
                spread = log_total.square().sum()
                if wants_grad:
                    part = nll / counted + unitary_lambda * spread / tokens
                    piece_grad, *leaf_grads = torch.autograd.grad(part, [piece, *leaves])
                    grad_blocks[start:stop] = piece_grad  # type: ignore[index]
                    for held, new in zip(grads, leaf_grads, strict=True):
                        held += new
            nll_sum += nll.detach()
            divergence += spread.detach() / tokens
        if wants_grad:
            ctx.save_for_backward(grad_blocks, *grads)
        loss = nll_sum / counted + unitary_lambda * divergence
        ctx.mark_non_differentiable(nll_sum, divergence)
        return loss, nll_sum, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        return *(held * grad for held in ctx.saved_tensors), None, None, None, None
