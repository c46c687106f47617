"""The plain encoder: a learned wave for each token."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.diagnostics import Diagnostics
from sem.encoder.carrier import Carrier


class EmbeddingState(NamedTuple):
    """What the tokens seen so far leave to those that follow: their number, ``rows [B]``, int64."""

    rows: Tensor


class EmbeddingWeights(NamedTuple):
    """What the encoder continues a sequence with: ``waves [vocab_size, 2 dim]``, re and im side by side."""

    waves: Tensor


class TokenEmbedding(nn.Module):
    """``[B, S]`` int64 tokens to complex64 ``[B, S, dim]``: row ``token`` of a learned table, unit RMS at the start.

    Args:
        vocab_size, dim: sizes of the alphabet and of the wave.
        carrier: turn each channel by its position, see :class:`Carrier`.

    Example:
        >>> TokenEmbedding(260, 16)(torch.tensor([[1, 2, 1]])).shape
        torch.Size([1, 3, 16])
    """

    def __init__(self, vocab_size: int, dim: int, *, carrier: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, dim, 2) / math.sqrt(2))
        self.carrier = Carrier(dim, carrier)

    def forward(self, tokens: Tensor, diagnostics: Diagnostics | None = None) -> Tensor:
        """``[B, S]`` int64 tokens, the first at position 0, to complex64 ``[B, S, dim]``. There is nothing to measure:
        ``diagnostics`` stays as it is."""
        return self._wave(tokens, torch.arange(tokens.shape[1], device=tokens.device), self.weights())

    def start(self, batch: int) -> EmbeddingState:
        """The state before the first token of ``batch`` sequences."""
        return EmbeddingState(torch.zeros(batch, dtype=torch.int64, device=self.weight.device))

    def weights(self) -> EmbeddingWeights:
        """What :meth:`advance` computes with, from the parameters of now."""
        return EmbeddingWeights(self.weight.flatten(1))

    @torch.no_grad()
    def advance(
        self, tokens: Tensor, state: EmbeddingState, weights: EmbeddingWeights
    ) -> tuple[Tensor, EmbeddingState]:
        """What :meth:`forward` gives for ``tokens [B, S]`` behind those that left ``state``, and the state they leave,
        with :meth:`weights` of now or before. There are no gradients."""
        steps = tokens.shape[1]
        positions = state.rows.unsqueeze(-1) + torch.arange(steps, device=tokens.device)
        return self._wave(tokens, positions, weights), EmbeddingState(state.rows + steps)

    def _wave(self, tokens: Tensor, positions: Tensor, weights: EmbeddingWeights) -> Tensor:
        blocks = functional.embedding(tokens, weights.waves).float()
        return self.carrier.turn(torch.view_as_complex(blocks.unflatten(-1, (-1, 2))), positions)
