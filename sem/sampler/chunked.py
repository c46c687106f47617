"""A head's loss over tokens and alphabet, chunk by chunk, so that no ``[tokens, vocab]`` tensor outlives a chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sem.precision import product_dtype

IGNORED = -100


class ReadOut(Protocol):
    """What makes log-probabilities of the states that some model's head reads."""

    def log_probabilities(self, states: Tensor, /) -> Tensor:
        """Float32 `[n, vocab]` of ``states [n, width]``; a constant for each row may be missing."""
        ...


class SoftTargets(NamedTuple):
    """What a teacher says of the same tokens, kept as the states that its head reads: ``vocab`` numbers for a token
    exist for one chunk of tokens at a time.

    Attributes:
        states: `[..., width]`, of the same tokens as the targets.
        head: of the teacher.
        temperature: divides both models' log-probabilities.
        weight: share of the teacher in the loss, 0 to 1.
    """

    states: Tensor
    head: ReadOut
    temperature: float
    weight: float


class HeadLoss(NamedTuple):
    """0-d tensors. ``loss`` is what to differentiate; the others are reports without gradient.

    ``soft_sum`` is the sum over targets of ``T^2 KL(teacher || model)`` at the temperature T; None without a teacher.
    """

    loss: Tensor
    nll_sum: Tensor
    unitary_divergence: Tensor
    soft_sum: Tensor | None = None


class HeadGradients(NamedTuple):
    """Of a whole loss: ``blocks [N, 2 dim]`` are put in place chunk by chunk, ``matrix`` and ``bias`` added up."""

    blocks: Tensor
    matrix: Tensor
    bias: Tensor


class SoftChunk(NamedTuple):
    """A teacher's ``log_probabilities [n, vocab]`` of a chunk's tokens, of which each weighs ``weight`` (0-d)."""

    log_probabilities: Tensor
    temperature: float
    weight: Tensor

    def compare(self, learnt: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the tokens that ``counts [n, 1]`` tells of ``T^2 KL(teacher || learnt)``, and the weighted gradient
        to ``learnt [n, vocab]``, log-probabilities but for a constant for each row."""
        taught = (self.log_probabilities / self.temperature).log_softmax(-1)
        learnt = (learnt / self.temperature).log_softmax(-1)
        divergence = functional.kl_div(learnt, taught, reduction="none", log_target=True).sum(-1, keepdim=True)
        grad = learnt.exp_().sub_(taught.exp_()).mul_(counts * (self.weight * self.temperature))
        return divergence.where(counts, 0).sum() * self.temperature**2, grad


class Chunk(NamedTuple):
    """Some of the tokens.

    ``rows [n, 2 dim]`` are waves as real blocks and ``matrix`` the head's, both in the dtype of products;
    ``target [n, 1]`` is 0 where ``counts [n, 1]`` is false. A token weighs ``nll_weight`` (0-d) and ``spread_weight``.
    """

    rows: Tensor
    matrix: Tensor
    bias: Tensor
    target: Tensor
    counts: Tensor
    nll_weight: Tensor
    spread_weight: float
    soft: SoftChunk | None


ChunkLoss = Callable[[Chunk, slice, HeadGradients | None], tuple[Tensor, Tensor, Tensor | float]]
"""Sums over a chunk's tokens, of the negative log-likelihood, of the squared log of the total and of what the teacher
is compared by (0 without one); their weighted gradients are put into the slice of, or on top of, the last argument,
unless that is None."""


def chunked_loss(
    chunk_loss: ChunkLoss,
    psi: Tensor,
    matrix: Tensor,
    bias: Tensor,
    targets: Tensor,
    unitary_lambda: float,
    chunk_tokens: int,
    soft: SoftTargets | None = None,
) -> HeadLoss:
    """Mean negative log-likelihood (nats per target) plus ``unitary_lambda`` times the unitary divergence.

    With a teacher of weight w, the likelihood weighs 1 - w, and w times ``T^2 KL(teacher || model)`` is added, a mean
    over targets too.

    Args:
        chunk_loss: of the kind of head.
        psi: complex64 ``[..., dim]``.
        matrix: real, of what multiplies the real blocks of a wave; ``bias [vocab]``.
        targets: int64 ``[...]``; -100 is ignored.
        unitary_lambda: weight of the mean over all tokens of ``log(total)^2``.
        chunk_tokens: tokens of a chunk.
        soft: what a teacher says of the same tokens; its numbers get no gradient.
    """
    blocks = torch.view_as_real(psi.resolve_conj()).reshape(-1, 2 * psi.shape[-1])
    recording = torch.is_grad_enabled()
    if soft is not None:
        soft = soft._replace(states=soft.states.detach().flatten(0, -2))
    given = chunk_loss, blocks, matrix, bias, targets.reshape(-1), unitary_lambda, chunk_tokens, recording, soft
    loss, nll_sum, divergence, soft_sum = _ChunkedLoss.apply(*given)
    return HeadLoss(loss, nll_sum, divergence, None if soft is None else soft_sum)


class _ChunkedLoss(Function):
    """The loss and its gradients, both in the forward; the backward only scales."""

    @staticmethod
    def forward(
        ctx: Any,
        chunk_loss: ChunkLoss,
        blocks: Tensor,
        matrix: Tensor,
        bias: Tensor,
        targets: Tensor,
        unitary_lambda: float,
        chunk: int,
        recording: bool,
        soft: SoftTargets | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        counted = (targets != IGNORED).sum().clamp_min(1)
        tokens = max(blocks.shape[0], 1)
        grads = None
        if recording and any(ctx.needs_input_grad[1:4]):
            grads = HeadGradients(torch.empty_like(blocks), torch.zeros_like(matrix), torch.zeros_like(bias))
        nll_sum = blocks.new_zeros(())
        divergence = blocks.new_zeros(())
        soft_sum = blocks.new_zeros(())
        hard_weight = 1.0 if soft is None else 1.0 - soft.weight
        dtype = product_dtype(blocks)
        narrow = matrix.to(dtype)
        for start in range(0, blocks.shape[0], chunk):
            piece = slice(start, start + chunk)
            counts = (targets[piece] != IGNORED).unsqueeze(-1)
            target = targets[piece].unsqueeze(-1).where(counts, 0)
            weights = hard_weight / counted, unitary_lambda / tokens
            taught = None
            if soft is not None:
                known = soft.head.log_probabilities(soft.states[piece]).float()
                taught = SoftChunk(known, soft.temperature, soft.weight / counted)
            nll, spread, compared = chunk_loss(
                Chunk(blocks[piece].to(dtype), narrow, bias, target, counts, *weights, taught), piece, grads
            )
            nll_sum += nll
            divergence += spread / tokens
            soft_sum += compared
        if grads is not None:
            ctx.save_for_backward(*grads)
        loss = nll_sum / counted + unitary_lambda * divergence
        if soft is not None:
            loss = hard_weight * (nll_sum / counted) + soft.weight * (soft_sum / counted) + unitary_lambda * divergence
        ctx.mark_non_differentiable(nll_sum, divergence, soft_sum)
        return loss, nll_sum, divergence, soft_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(held * grad for held in ctx.saved_tensors), None, None, None, None, None
