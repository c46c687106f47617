"""The signal-entropic model: encoder, spinor layers, propagator, norm and Born head, composed."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from sem.config import SEMConfig
from sem.diagnostics import Diagnostics
from sem.encoder import MeshSDREncoder
from sem.layers import ComplexRMSNorm
from sem.precision import StagedModule
from sem.propagator import CayleySolitonStack
from sem.sampler import BornHead
from sem.spinor import ComplexMamba3Layer


class SEMModel(StagedModule):
    """A causal language model whose hidden state is a complex wave.

    Tokens are lifted to waves, mixed along the sequence, moved unitarily within each token and read out by Born's rule.
    Position t depends on tokens up to t only.

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

    stages: ClassVar[dict[str, bool]] = {"encoder": False, "spinor": False, "propagator": True, "head": False}

    def __init__(self, config: SEMConfig) -> None:
        super().__init__()
        self.config = config
        model, encoder, spinor, propagator = config.model, config.encoder, config.spinor, config.propagator
        self.encoder = MeshSDREncoder(
            model.vocab_size,
            model.hidden_dim,
            candidates=encoder.sdr_candidates,
            sparsity=encoder.sdr_sparsity,
            epsilon=encoder.sinkhorn_epsilon,
            max_iter=encoder.sinkhorn_max_iter,
            tol=encoder.sinkhorn_tol,
            projection_dim=encoder.projection_dim,
            frequency_weighting=encoder.frequency_weighting,
        )
        self.mamba_layers = nn.ModuleList(
            ComplexMamba3Layer(
                model.hidden_dim,
                block_size=spinor.block_size,
                state_dim=spinor.state_dim,
                mimo_groups=spinor.mimo_groups,
                d_conv=spinor.d_conv,
                num_layers=model.num_layers,
            )
            for _ in range(model.num_layers)
        )
        self.propagator = CayleySolitonStack(
            model.hidden_dim,
            model.num_layers if propagator.num_layers is None else propagator.num_layers,
            dt=propagator.cayley_dt,
            cg_max_iter=propagator.cg_max_iter,
            cg_tol=propagator.cg_tol,
            nonlinear_alpha=propagator.nonlinear_alpha,
            laplacian_sparsity=propagator.laplacian_sparsity,
            num_scales=propagator.num_scales,
            long_range_share=propagator.long_range_share,
            pit_enabled=propagator.pit_enabled,
            pit_num_bins=propagator.pit_num_bins,
            pit_strength_init=propagator.pit_strength_init,
            pit_rule=propagator.pit_rule,
        )
        self.final_norm = ComplexRMSNorm(model.hidden_dim)
        self.sampler = BornHead(model.hidden_dim, model.vocab_size)

    def waves(self, tokens: Tensor, diagnostics: Diagnostics | None = None) -> Tensor:
        """The normalised wave of each position, complex64 ``[B, S, hidden_dim]``, from int64 ``tokens [B, S]``."""
        with self.stage("encoder"):
            psi = self.encoder(tokens, diagnostics)
        with self.stage("spinor"):
            for layer in self.mamba_layers:
                psi = layer(psi)
        with self.stage("propagator"):
            return self.final_norm(self.propagator(psi, diagnostics))

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, diagnostics: Diagnostics | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Log-probabilities of the next token, float32 ``[B, S, vocab_size]``; with ``targets``, :meth:`loss`."""
        if targets is not None:
            return self.loss(tokens, targets, diagnostics)
        psi = self.waves(tokens, diagnostics)
        with self.stage("head"):
            return self.sampler(psi)

    def loss(self, tokens: Tensor, targets: Tensor, diagnostics: Diagnostics | None = None) -> dict[str, Tensor]:
        """``loss`` (to differentiate), ``nll_sum`` (nats over all targets) and ``unitary_divergence``; targets of -100
        are ignored."""
        psi = self.waves(tokens, diagnostics)
        with self.stage("head"):
            born = self.sampler.loss(psi, targets, self.config.training.unitary_lambda)
        if diagnostics is not None:
            diagnostics.record("unitary_divergence", born.unitary_divergence)
        return born._asdict()
