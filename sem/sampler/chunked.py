"""A head's loss over tokens and alphabet, chunk by chunk, so that no ``[tokens, vocab]`` tensor outlives a chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sem.precision import product_dtype

IGNORED = -100


class HeadLoss(NamedTuple):
    """0-d tensors. ``loss`` is what to differentiate; the others are reports without gradient."""

    loss: Tensor
    nll_sum: Tensor
    unitary_divergence: Tensor


class HeadGradients(NamedTuple):
    """Of a whole loss: ``blocks [N, 2 dim]`` are put in place chunk by chunk, ``matrix`` and ``bias`` added up."""

    blocks: Tensor
    matrix: Tensor
    bias: Tensor


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


ChunkLoss = Callable[[Chunk, slice, HeadGradients | None], tuple[Tensor, Tensor]]
"""Sums over a chunk's tokens, of the negative log-likelihood and of the squared log of the total; their weighted
gradients are put into the slice of, or on top of, the last argument, unless that is None."""


def chunked_loss(
    chunk_loss: ChunkLoss,
    psi: Tensor,
    matrix: Tensor,
    bias: Tensor,
    targets: Tensor,
    unitary_lambda: float,
    chunk_tokens: int,
) -> HeadLoss:
    """Mean negative log-likelihood (nats per target) plus ``unitary_lambda`` times the unitary divergence.

    Args:
        chunk_loss: of the kind of head.
        psi: complex64 ``[..., dim]``.
        matrix: real, of what multiplies the real blocks of a wave; ``bias [vocab]``.
        targets: int64 ``[...]``; -100 is ignored.
        unitary_lambda: weight of the mean over all tokens of ``log(total)^2``.
        chunk_tokens: tokens of a chunk.
    """
    blocks = torch.view_as_real(psi.resolve_conj()).reshape(-1, 2 * psi.shape[-1])
    recording = torch.is_grad_enabled()
    given = chunk_loss, blocks, matrix, bias, targets.reshape(-1), unitary_lambda, chunk_tokens, recording
    return HeadLoss(*_ChunkedLoss.apply(*given))


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
    ) -> tuple[Tensor, Tensor, Tensor]:
        counted = (targets != IGNORED).sum().clamp_min(1)
        tokens = max(blocks.shape[0], 1)
        grads = None
        if recording and any(ctx.needs_input_grad[1:4]):
            grads = HeadGradients(torch.empty_like(blocks), torch.zeros_like(matrix), torch.zeros_like(bias))
        nll_sum = blocks.new_zeros(())
        divergence = blocks.new_zeros(())
        dtype = product_dtype(blocks)
        narrow = matrix.to(dtype)
        for start in range(0, blocks.shape[0], chunk):
            piece = slice(start, start + chunk)
            counts = (targets[piece] != IGNORED).unsqueeze(-1)
            target = targets[piece].unsqueeze(-1).where(counts, 0)
            weights = 1 / counted, unitary_lambda / tokens
            nll, spread = chunk_loss(
                Chunk(blocks[piece].to(dtype), narrow, bias, target, counts, *weights), piece, grads
            )
            nll_sum += nll
            divergence += spread / tokens
        if grads is not None:
            ctx.save_for_backward(*grads)
        loss = nll_sum / counted + unitary_lambda * divergence
        ctx.mark_non_differentiable(nll_sum, divergence)
        return loss, nll_sum, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(held * grad for held in ctx.saved_tensors), None, None, None, None
