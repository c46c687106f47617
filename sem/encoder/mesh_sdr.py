"""The encoder: tokens become sparse distributions over learned prototypes, and those become complex waves."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sem.diagnostics import Diagnostics
from sem.encoder.carrier import Carrier
from sem.encoder.transport import (
    TransportState,
    continue_transport,
    online_transport,
    transport_kernel,
    transport_start,
)
from sem.ops.composed import sparsify
from sem.ops.encoder_step import encoder_step
from sem.precision import outside_autocast

_COST_SPREAD = 0.35  # at most, over the prototypes, in units of epsilon
_EMBEDDING_STD = 0.25
_PRIOR_ROWS = 16.0
_QUIET = 50.0  # positions: an entry that turns by a radian in this many starts at half amplitude


class EncoderWeights(NamedTuple):
    """What the encoder continues a sequence with, from its parameters: ``kernel [vocab_size, candidates]``, the
    transport's of each token, ``lift [2 dim, candidates]``, which makes real blocks of a plan, and ``direct
    [vocab_size, 2 dim]``, the tokens' own waves, if they have any."""

    kernel: Tensor
    lift: Tensor
    direct: Tensor | None


class MeshSDREncoder(nn.Module):
    """Causal encoder ``[B, S]`` int64 tokens to complex64 ``[B, S, dim]``.

    The cost of a token to each of ``candidates`` prototypes is a squared distance in a learned projection, times a
    learned scale that starts where the transport is neither flat nor sharp: its spread over the prototypes is at
    most ``epsilon``. Online entropic transport turns costs into a plan, the k-th largest entry is subtracted, and a
    complex linear map lifts the sparse plan to a wave. With ``direct``, a learned wave of the token itself is added.

    Args:
        vocab_size, dim: sizes of the alphabet and of the wave.
        candidates: ``M`` prototypes. sparsity: ``k``.
        epsilon: temperature of the transport. max_iter, tol: limits of its iteration, per row.
        projection_dim: width in which distances are taken.
        frequency_weighting: divide the cost by ``log(f + e)``, with ``f`` how often a token occurred in earlier
            training batches per ``vocab_size`` tokens (a buffer, saved with the model, fixed in inference).
        direct: add a learned wave per token, of the same size at the start.
        carrier: turn each channel by its position, see :class:`Carrier`.

    Example:
        >>> encoder = MeshSDREncoder(260, 16, candidates=32, sparsity=8)
        >>> encoder(torch.tensor([[1, 2, 1]])).shape
        torch.Size([1, 3, 16])
    """

    token_counts: Tensor
    plan_gain: Tensor

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        candidates: int = 128,
        sparsity: int = 32,
        epsilon: float = 0.05,
        max_iter: int = 50,
        tol: float = 1e-3,
        projection_dim: int = 64,
        frequency_weighting: bool = False,
        direct: bool = False,
        carrier: bool = False,
    ) -> None:
        super().__init__()
        self.sparsity = sparsity
        self.epsilon = epsilon
        self.max_iter = max_iter
        self.tol = tol
        self.frequency_weighting = frequency_weighting
        self.embedding = nn.Embedding(vocab_size, dim)
        self.project = nn.Linear(dim, projection_dim, bias=False)
        self.prototypes = nn.Parameter(torch.empty(candidates, projection_dim))
        self.lift = nn.Parameter(torch.randn(dim, candidates, 2) / math.sqrt(2 * candidates))
        self.log_cost_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("plan_gain", torch.ones(()))
        self.register_buffer("token_counts", torch.zeros(vocab_size))
        self.carrier = Carrier(dim, carrier)
        self.log_cost_scale._no_weight_decay = True  # type: ignore[attr-defined]
        self._scale_parameters()
        self.direct = nn.Parameter(torch.randn(vocab_size, dim, 2) / math.sqrt(2)) if direct else None

    @torch.no_grad()
    def _scale_parameters(self) -> None:
        """Choose the scales from the initial parameters themselves: prototypes as wide as the tokens' projections, the
        cost's spread, and a fixed gain on the plan (its entries are small) that gives the wave unit RMS. Parameters on
        the meta device have no values yet; who builds a model there loads them."""
        if self.embedding.weight.is_meta:
            return
        self.embedding.weight.mul_(_EMBEDDING_STD)
        self.prototypes.normal_(std=float(self.project(self.embedding.weight).std()))
        spread = self.token_cost().std(dim=-1).max()
        self.log_cost_scale.copy_((_COST_SPREAD * self.epsilon / spread).log())
        plan = sparsify((-self.token_cost() / self.epsilon).softmax(-1), self.sparsity)
        power = plan.square().sum(-1).mean() * self.lift.square().sum(-1).mean()
        self.plan_gain.copy_(power.clamp_min(1e-12).rsqrt())
        # entries that turn fast with the position can be read by few layers: they start quiet and leave room
        self.lift.div_((1 + _QUIET * self.carrier.rates(self.lift.device)).view(-1, 1, 1))

    def token_cost(self) -> Tensor:
        """Cost of every token of the alphabet to every prototype, ``[vocab_size, candidates]``."""
        points = self.project(self.embedding.weight).float()
        cost = (
            points.square().sum(-1, keepdim=True)
            - 2 * points @ self.prototypes.float().T
            + self.prototypes.float().square().sum(-1)
        ) * self.log_cost_scale.exp()
        if self.frequency_weighting:
            total = self.token_counts.sum().clamp_min(1)
            frequency = self.token_counts * (len(self.token_counts) / total)
            cost = cost / (frequency + math.e).log().unsqueeze(-1)
        return cost

    def forward(self, tokens: Tensor, diagnostics: Diagnostics | None = None) -> Tensor:
        """``[B, S]`` int64 tokens, the first at position 0, to complex64 ``[B, S, dim]``.

        ``diagnostics`` gets ``sdr_sparsity`` (the share of zeros in the sparse plan), ``transport_iterations`` and
        ``transport_unconverged`` per row. In training with ``frequency_weighting`` the tokens are counted, after
        use."""
        log_kernel = nn.functional.embedding(tokens, self._log_kernel())
        with outside_autocast(tokens.device.type):
            transport = online_transport(log_kernel, _PRIOR_ROWS, self.tol, self.max_iter)
            plan = sparsify(transport.plan, self.sparsity)
        if self.frequency_weighting and self.training:
            self._count(tokens)
        if diagnostics is not None:
            with torch.no_grad():
                diagnostics.record("sdr_sparsity", (plan == 0).float())
                diagnostics.record("transport_iterations", transport.iterations)
                diagnostics.record("transport_unconverged", (~transport.converged).float())
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self._wave(plan, tokens, positions, self._lift(), self._direct())

    def start(self, batch: int) -> TransportState:
        """The state before the first token of ``batch`` sequences."""
        return transport_start(batch, len(self.prototypes), self.max_iter, self.prototypes.device)

    def weights(self) -> EncoderWeights:
        """What :meth:`advance` computes with, from the parameters of now."""
        return EncoderWeights(transport_kernel(self._log_kernel()), self._lift(), self._direct())

    @torch.no_grad()
    def advance(self, tokens: Tensor, state: TransportState, weights: EncoderWeights) -> tuple[Tensor, TransportState]:
        """What :meth:`forward` gives for ``tokens [B, S]`` behind those that left ``state``, and the state they leave,
        with :meth:`weights` of now or before. Nothing is counted, and there are no gradients."""
        kernel = nn.functional.embedding(tokens, weights.kernel)
        positions = state.rows.unsqueeze(-1) + torch.arange(tokens.shape[1], device=tokens.device)
        if tokens.shape[1] == 1:
            rates = self.carrier.rates(tokens.device)
            given = kernel.squeeze(1), state.rows.float(), state.loads, state.lost, weights.lift, rates
            with outside_autocast(tokens.device.type):
                wave, loads, lost = encoder_step(*given, _PRIOR_ROWS, self.tol, self.sparsity)
            psi = torch.view_as_complex(wave).unsqueeze(1)
            if weights.direct is not None:
                psi = psi + self.carrier.turn(_waves(tokens, weights.direct), positions)
            return psi, TransportState(loads, lost, state.rows + 1)
        with outside_autocast(tokens.device.type):
            plan, after = continue_transport(kernel, _PRIOR_ROWS, self.tol, state)
            plan = sparsify(plan, self.sparsity)
        return self._wave(plan, tokens, positions, weights.lift, weights.direct), after

    def _log_kernel(self) -> Tensor:
        """Of every token of the alphabet, float32 ``[vocab_size, candidates]``."""
        return (-self.token_cost() / self.epsilon).float()

    def _lift(self) -> Tensor:
        """From a plan to real blocks, ``[2 dim, candidates]``."""
        return self.lift.transpose(1, 2).flatten(0, 1) * self.plan_gain

    def _direct(self) -> Tensor | None:
        """Real blocks of the tokens' own waves, ``[vocab_size, 2 dim]``."""
        return None if self.direct is None else self.direct.flatten(1)

    def _wave(self, plan: Tensor, tokens: Tensor, positions: Tensor, lift: Tensor, direct: Tensor | None) -> Tensor:
        wave = torch.view_as_complex(nn.functional.linear(plan, lift).float().unflatten(-1, (-1, 2)))
        return self.carrier.turn(wave if direct is None else wave + _waves(tokens, direct), positions)

    @torch.no_grad()
    def _count(self, tokens: Tensor) -> None:
        # after use: a batch is weighted by the batches before it alone
        self.token_counts += torch.bincount(tokens.flatten(), minlength=len(self.token_counts))


def _waves(tokens: Tensor, direct: Tensor) -> Tensor:
    return torch.view_as_complex(nn.functional.embedding(tokens, direct).float().unflatten(-1, (-1, 2)))
