"""The signal-entropic model: encoder, spinor layers, propagator layers, norm and head, composed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sem.config import SEMConfig
from sem.diagnostics import Diagnostics
from sem.encoder import (
    Carrier,
    EmbeddingState,
    EmbeddingWeights,
    EncoderWeights,
    MeshSDREncoder,
    TokenEmbedding,
    TransportState,
)
from sem.layers import ComplexRMSNorm, NormWeights
from sem.ops.complex_rms_norm import complex_rms_norm_forward
from sem.precision import StagedModule
from sem.propagator import CayleySolitonStack, PropagatorWeights
from sem.sampler import BornHead, BornWeights, CoherentHead, CoherentWeights, SoftTargets
from sem.spinor import ComplexMamba3Layer, SpinorState, SpinorWeights

_PREFILL_CHUNK = 512


class DecodingWeights(NamedTuple):
    """What the stages compute with when they decode: copies of the parameters, in the form each stage reads."""

    encoder: EncoderWeights | EmbeddingWeights
    spinor: tuple[SpinorWeights, ...]
    propagator: tuple[PropagatorWeights, ...]
    norm: NormWeights
    head: BornWeights | CoherentWeights


class DecodingState(NamedTuple):
    """All that the tokens seen so far leave to those that follow. Its size does not depend on their number.

    ``encoder`` has the position and, with transport, its column sums; ``spinor`` has, per layer, the convolution's last
    inputs and the scan's state; the batch is the first dimension of their tensors. The other stages work on each token
    alone. ``weights`` are the model's of the moment the state began: a text is continued by the model that began it,
    whatever becomes of the parameters meanwhile.
    """

    encoder: TransportState | EmbeddingState
    spinor: tuple[SpinorState, ...]
    weights: DecodingWeights

    def rows(self, index: Tensor) -> DecodingState:
        """The sequences ``index [n]`` (int64) of the batch; one may be taken several times, to be continued in several
        ways."""
        encoder = type(self.encoder)(*(tensor[index] for tensor in self.encoder))
        spinor = tuple(SpinorState(*(tensor[index] for tensor in layer)) for layer in self.spinor)
        return DecodingState(encoder, spinor, self.weights)

    @staticmethod
    def joined(states: Sequence[DecodingState]) -> DecodingState:
        """The sequences of ``states``, which began with one :meth:`SEMModel.init_state`, as one batch; the texts may be
        of different lengths."""
        first = states[0]
        encoder = type(first.encoder)(*map(torch.cat, zip(*(state.encoder for state in states), strict=True)))
        layers = zip(*(state.spinor for state in states), strict=True)
        spinor = tuple(SpinorState(*map(torch.cat, zip(*layer, strict=True))) for layer in layers)
        return DecodingState(encoder, spinor, first.weights)


class SEMModel(StagedModule):
    """A causal language model whose hidden state is a complex wave.

    Tokens are lifted to waves, mixed along the sequence, moved unitarily within each token and read out by Born's rule.
    Mixing layers (``mamba_layers``) and propagator layers (``propagator.layers``) alternate, or stand one behind the
    other. Position t depends on tokens up to t only.

    Args:
        config: all sizes; see :class:`sem.config.SEMConfig`.

    Example:
        >>> from sem.config import SEMConfig
        >>> config = SEMConfig.from_dict({"model": {"hidden_dim": 32, "num_layers": 1, "max_seq_length": 16},
        ...     "spinor": {"state_dim": 4, "mimo_groups": 4}})
        >>> model = SEMModel(config)
        >>> tokens = torch.randint(256, (2, 16))
        >>> model(tokens).exp().sum(-1).allclose(torch.ones(2, 16))
        True
    """

    def __init__(self, config: SEMConfig) -> None:
        super().__init__()
        coherent = config.sampler.kind == "coherent"
        self.stages = {"encoder": False, "spinor": False, "propagator": True, "head": coherent}
        self.config = config
        model, spinor, propagator = config.model, config.spinor, config.propagator
        self.encoder = _encoder(config)
        self.mamba_layers = nn.ModuleList(
            ComplexMamba3Layer(
                model.hidden_dim,
                block_size=spinor.block_size,
                state_dim=spinor.state_dim,
                mimo_groups=spinor.mimo_groups,
                d_conv=spinor.d_conv,
                num_layers=model.num_layers,
                rotation=spinor.rotation,
                output_gate=spinor.output_gate,
                projection=spinor.projection,
            )
            for _ in range(model.num_layers)
        )
        self.propagator = CayleySolitonStack(
            model.hidden_dim,
            model.num_layers if propagator.num_layers is None else propagator.num_layers,
            dt=propagator.cayley_dt,
            cg_max_iter=propagator.cg_max_iter,
            cg_tol=propagator.cg_tol,
            kerr=propagator.kerr,
            laplacian_sparsity=propagator.laplacian_sparsity,
            num_scales=propagator.num_scales,
            long_range_share=propagator.long_range_share,
            pit_enabled=propagator.pit_enabled,
            pit_num_bins=propagator.pit_num_bins,
            pit_strength_init=propagator.pit_strength_init,
            pit_rule=propagator.pit_rule,
            potential=propagator.potential == "linear",
            echo=propagator.echo,
        )
        self._behind = _propagators_behind(model.num_layers, len(self.propagator.layers), model.layout)
        self.final_norm = ComplexRMSNorm(model.hidden_dim)
        head = CoherentHead if coherent else BornHead
        self.sampler = head(model.hidden_dim, model.vocab_size)
        self._demodulator = Carrier(model.hidden_dim, config.encoder.carrier == "demodulated")

    def waves(self, tokens: Tensor, diagnostics: Diagnostics | None = None) -> Tensor:
        """The normalised wave of each position, complex64 ``[B, S, hidden_dim]``, from int64 ``tokens [B, S]``."""
        with self.stage("encoder"):
            psi = self.encoder(tokens, diagnostics)
        for layer, behind in zip(self.mamba_layers, self._behind, strict=True):
            with self.stage("spinor"):
                psi = layer(psi)
            with self.stage("propagator"):
                psi = self.propagator(psi, diagnostics, behind)
        with self.stage("propagator"):
            psi = self.final_norm(psi)
        return self._demodulator.turn(psi, -torch.arange(tokens.shape[1], device=tokens.device))

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        diagnostics: Diagnostics | None = None,
        soft: SoftTargets | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Log-probabilities of the next token, float32 ``[B, S, vocab_size]``; with ``targets``, :meth:`loss`."""
        if targets is not None:
            return self.loss(tokens, targets, diagnostics, soft)
        psi = self.waves(tokens, diagnostics)
        with self.stage("head"):
            return self.sampler(psi)

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        diagnostics: Diagnostics | None = None,
        soft: SoftTargets | None = None,
    ) -> dict[str, Tensor]:
        """``loss`` (to differentiate), ``nll_sum`` (nats over all targets) and ``unitary_divergence``; targets of -100
        are ignored. With ``soft``, what a teacher says of ``tokens``, also ``soft_sum``, see
        :class:`~sem.sampler.HeadLoss`."""
        psi = self.waves(tokens, diagnostics)
        with self.stage("head"):
            found = self.sampler.loss(psi, targets, self.config.training.unitary_lambda, soft)
        if diagnostics is not None:
            diagnostics.record("unitary_divergence", found.unitary_divergence)
        return {name: value for name, value in found._asdict().items() if value is not None}

    def init_state(self, batch: int) -> DecodingState:
        """The state before the first token of ``batch`` sequences, on the model's device.

        It holds what the parameters give once and for all, so that a step need not derive it; later changes of the
        parameters do not reach it. Who continues many prompts one by one may begin them all with one such state.

        Raises:
            ValueError: ``batch`` is less than 1.
        """
        if batch < 1:
            raise ValueError(f"batch: expected an integer >= 1, got {batch}")
        spinor = tuple(layer.start(batch) for layer in self.mamba_layers)  # type: ignore[operator]
        return DecodingState(self.encoder.start(batch), spinor, self._decoding_weights())

    @torch.no_grad()
    def _decoding_weights(self) -> DecodingWeights:
        with self.stage("encoder"):
            encoder = self.encoder.weights()
        with self.stage("spinor"):
            spinor = tuple(layer.weights() for layer in self.mamba_layers)  # type: ignore[operator]
        with self.stage("propagator"):
            propagator, norm = self.propagator.weights(), self.final_norm.weights()
        with self.stage("head"):
            head = self.sampler.weights()
        return _copies(DecodingWeights(encoder, spinor, propagator, norm, head))

    def step(self, token: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """One token further, in time and memory that do not depend on how many came before.

        Args:
            token: int64 `[B]`.
            state: what the tokens before left, from :meth:`init_state`, :meth:`prefill` or here; it is not changed.

        Returns:
            Log-probabilities of the next token, float32 `[B, vocab_size]`, those of :meth:`forward` at this position
            but for rounding, and the state behind ``token``. There are no gradients.

        Raises:
            ValueError: ``token`` is not int64 of the state's batch size.

        Example:
            >>> from sem.config import SEMConfig
            >>> model = SEMModel(SEMConfig.from_dict({"model": {"hidden_dim": 32, "num_layers": 1}}))
            >>> _, state = model.prefill(torch.tensor([[104, 101, 108, 108]]))
            >>> log_probabilities, state = model.step(torch.tensor([111]), state)
            >>> log_probabilities.shape, int(state.encoder.rows)
            (torch.Size([1, 260]), 5)
        """
        if token.dim() != 1:
            raise ValueError(f"token: expected shape [B], got {list(token.shape)}")
        return self._continue(token.unsqueeze(1), state)

    def prefill(self, tokens: Tensor, state: DecodingState | None = None) -> tuple[Tensor, DecodingState]:
        """Many tokens at once, in chunks of bounded memory: what :meth:`step` gives behind the last of them.

        Args:
            tokens: int64 `[B, S]`, at least one position.
            state: what the tokens before left, None at the beginning; it is not changed.

        Returns:
            As :meth:`step`, for the last position.

        Raises:
            ValueError: ``tokens`` is not int64 `[B, S]` with ``S >= 1``, or not of the state's batch size.
        """
        return self._continue(tokens, state)

    def _continue(self, tokens: Tensor, state: DecodingState | None) -> tuple[Tensor, DecodingState]:
        if tokens.dtype != torch.int64 or tokens.dim() != 2 or tokens.numel() == 0:
            raise ValueError(f"tokens: expected int64 [B, S], S >= 1, got {tokens.dtype} {list(tokens.shape)}")
        batch, length = tokens.shape
        if state is None:
            state = self.init_state(batch)
        if batch != state.encoder.rows.shape[0]:
            raise ValueError(f"tokens: expected {state.encoder.rows.shape[0]} sequences, as in state, got {batch}")
        weights = state.weights
        with torch.inference_mode():  # a tenth quicker than torch.no_grad
            for chunk in [tokens] if length <= _PREFILL_CHUNK else tokens.split(_PREFILL_CHUNK, 1):
                x, state = self._mix(chunk, state)
            with self.stage("propagator"):
                psi = torch.view_as_complex(complex_rms_norm_forward(x, *weights.norm))
            psi = self._demodulator.turn(psi, 1 - state.encoder.rows)
            with self.stage("head"):
                log_probabilities = weights.head.log_probabilities(psi)
        return log_probabilities.clone(), state  # a tensor that may be written to and recorded, as any other

    def _mix(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """The layers: real blocks ``[B, hidden_dim, 2]`` of the last position, and the state behind it."""
        weights = state.weights
        with self.stage("encoder"):
            given: Any = (tokens, state.encoder, weights.encoder)  # of the kind of this encoder
            psi, encoder = self.encoder.advance(*given)
        x = torch.view_as_real(psi)
        layers = []
        for layer, held, behind in zip(weights.spinor, state.spinor, self._behind, strict=True):
            with self.stage("spinor"):
                x, after = layer.advance(x, held)
            layers.append(after)
            if len(layers) == len(self._behind):  # nothing behind this looks back
                x = x[:, -1]
            with self.stage("propagator"):
                x = self.propagator.step(x, weights.propagator, behind)
        return x, DecodingState(encoder, tuple(layers), weights)


def _encoder(config: SEMConfig) -> TokenEmbedding | MeshSDREncoder:
    model, encoder = config.model, config.encoder
    carrier = encoder.carrier != "none"
    if encoder.kind == "embedding":
        return TokenEmbedding(model.vocab_size, model.hidden_dim, carrier=carrier)
    return MeshSDREncoder(
        model.vocab_size,
        model.hidden_dim,
        candidates=encoder.sdr_candidates,
        sparsity=encoder.sdr_sparsity,
        epsilon=encoder.sinkhorn_epsilon,
        max_iter=encoder.sinkhorn_max_iter,
        tol=encoder.sinkhorn_tol,
        projection_dim=encoder.projection_dim,
        frequency_weighting=encoder.frequency_weighting,
        direct=encoder.direct,
        carrier=carrier,
    )


def _propagators_behind(mixing: int, propagators: int, layout: str) -> list[slice]:
    """Which propagator layers stand behind each mixing layer; interleaved, they are spread evenly about the middle.

    Example:
        >>> _propagators_behind(3, 1, "interleaved")
        [slice(0, 0, None), slice(0, 1, None), slice(1, 1, None)]
    """
    if layout == "stacked":
        return [slice(0, 0)] * (mixing - 1) + [slice(0, propagators)]
    # the j-th of P stands behind mixing layer floor((j + 1/2) L / P)
    before = [(2 * k * propagators + mixing - 1) // (2 * mixing) for k in range(mixing + 1)]
    return list(map(slice, before, before[1:]))


def _copies(weights: Any) -> Any:
    """The same tuples with copies of the tensors in them, which no change of a parameter reaches."""
    if isinstance(weights, Tensor):
        return weights.clone(memory_format=torch.contiguous_format)
    if not isinstance(weights, tuple):
        return weights
    parts = map(_copies, weights)
    return tuple(parts) if type(weights) is tuple else type(weights)(*parts)
