"""The language models that learn side by side: the signal-entropic model and its peers in plain torch.

A peer's ``forward`` has the signature of :class:`sem.model.SEMModel`, so the same loop trains it on the same data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.bench.names import BY_ADAMW
from sem.bench.names import ENTRANTS as NAMES
from sem.config import SEMConfig
from sem.data import IGNORED_TARGET
from sem.model import SEMModel

CONTEXT = 256
"""Tokens per row of the peers."""
_OWN_WIDTH = 128
"""``model.hidden_dim`` at which the peers have the widths and rates that they are listed with."""


class LanguageModel(nn.Module):
    """A causal language model of real numbers; subclasses give :meth:`logits`."""

    def logits(self, tokens: Tensor) -> Tensor:
        """Float ``[B, S, vocab_size]`` from int64 ``tokens [B, S]``."""
        raise NotImplementedError

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, diagnostics: Any = None
    ) -> Tensor | dict[str, Tensor]:
        """Log-probabilities of the next token ``[B, S, vocab_size]``; with ``targets``, where -100 is ignored, their
        ``loss`` (mean nats, to differentiate) and ``nll_sum`` (nats over all)."""
        logits = self.logits(tokens)
        if targets is None:
            return logits.log_softmax(-1)
        nll = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED_TARGET, reduction="sum"
        )
        return {"loss": nll / (targets != IGNORED_TARGET).sum().clamp_min(1), "nll_sum": nll.detach()}

    def _tell_maps(self) -> None:
        """To optimizers that treat maps between hidden states as such: all matrices but the first and the last."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and not name.startswith(("tokens.", "positions.", "head.")):
                parameter._linear_map = "real"  # type: ignore[attr-defined]


class GPT(LanguageModel):
    """A pre-norm transformer with learned positions.

    Example:
        >>> model = GPT(260)
        >>> sum(p.numel() for p in model.parameters())
        892672
    """

    def __init__(self, vocab_size: int, *, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # the sum of what the layers add stays of one size however many there are
                to_residual = name.endswith(("attention_out.weight", "mlp_out.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if to_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        self._tell_maps()

    def logits(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] > CONTEXT:
            raise ValueError(f"tokens: expected at most {CONTEXT} positions, got {tokens.shape[1]}")
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        qkv = self.attention_in(self.attention_norm(x)).view(batch, steps, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, steps, width))
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x))))


class GRU(LanguageModel):
    """A stacked gated recurrent network that starts each row at zero.

    Example:
        >>> model = GRU(260)
        >>> sum(p.numel() for p in model.parameters())
        1165060
    """

    def __init__(self, vocab_size: int, *, embedding: int = 128, width: int = 320, layers: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, embedding)
        self.recurrence = nn.GRU(embedding, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocab_size)
        self._tell_maps()

    def logits(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrence(self.tokens(tokens))[0])


class MinGRU(LanguageModel):
    """A minimal gated recurrent network: gate and candidate do not look at the state (L. Feng et al., "Were RNNs all
    we needed?", 2024), so that all products are outside the recurrence. Each recurrence follows a causal depthwise
    convolution and is followed by a perceptron, both behind a norm and beside a residual.

    Example:
        >>> model = MinGRU(260)
        >>> sum(p.numel() for p in model.parameters())
        762756
    """

    def __init__(self, vocab_size: int, *, width: int = 128, layers: int = 4, expansion: float = 1.5) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(_MinGRUBlock(width, int(width * expansion)) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab_size)
        self._tell_maps()

    def logits(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class _MinGRUBlock(nn.Module):
    def __init__(self, width: int, inner: int, taps: int = 4) -> None:
        super().__init__()
        self.mixing_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.conv = nn.Conv1d(width, width, taps, groups=width, padding=taps - 1)
        self.mixing_in = nn.Linear(width, 2 * inner)
        self.mixing_out = nn.Linear(inner, width)
        self.mlp_in = nn.Linear(width, 3 * width)
        self.mlp_out = nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        local = self.conv(self.mixing_norm(x).transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        candidate, gate = self.mixing_in(local).chunk(2, -1)
        z = gate.sigmoid()
        driven = z * torch.where(candidate >= 0, candidate + 0.5, candidate.sigmoid())
        state, states = torch.zeros_like(driven[:, 0]), []
        # one pass over the steps costs a CPU less than the passes of a parallel scan
        for kept, added in zip((1 - z).unbind(1), driven.unbind(1), strict=True):
            state = torch.addcmul(added, kept, state)
            states.append(state)
        x = x + self.mixing_out(torch.stack(states, 1))
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x))))


@dataclass(frozen=True)
class Entrant:
    """A model that takes part.

    Attributes:
        name: what the command line calls it.
        build: makes the model for a configuration.
        settings: what it trains with in place of the configuration's, as ``section.key=value``.
        learning_rate: in place of the configuration's, at ``model.hidden_dim`` 128; at others as one over its root.
    """

    name: str
    build: Callable[[SEMConfig], nn.Module]
    settings: tuple[str, ...] = ()
    learning_rate: float | None = None

    def settings_beside(self, config: SEMConfig) -> list[str]:
        """All of them, for a model as wide as that of ``config``."""
        if self.learning_rate is None:
            return list(self.settings)
        rate = self.learning_rate * (_OWN_WIDTH / config.model.hidden_dim) ** 0.5
        return [*self.settings, f"training.learning_rate={rate:.6g}"]


_PEERS = (
    f"model.max_seq_length={CONTEXT}",
    f"data.seq_length={CONTEXT}",
    "training.scheduler=cosine",
    "training.lr_min_ratio=0.02",
    "training.gradient_clip=1",
    "training.beta1=0.9",
    "training.beta2=0.99",
)


def _peer(
    name: str,
    build: Callable[[SEMConfig], nn.Module],
    *,
    rows: int,
    rate: float,
    muon: float | None = None,
    warmup: int = 50,
    weight_decay: float = 0.1,
) -> Entrant:
    """A peer with muon of the rate ``muon``, or with AdamW alone."""
    settings = (
        f"training.batch_size={rows}",
        f"training.micro_batch_size={rows}",
        f"training.warmup_steps={warmup}",
        f"training.weight_decay={weight_decay}",
    )
    by: tuple[str, ...] = ("training.optimizer=adamw",)
    if muon is not None:
        by = ("training.optimizer=muon", f"training.muon_learning_rate={muon}")
    return Entrant(name if muon is not None else name + BY_ADAMW, build, (*_PEERS, *settings, *by), rate)


def _beside(config: SEMConfig, width: int) -> int:
    """``width`` in proportion to the model's own, in whole 32."""
    return max(32, round(width * config.model.hidden_dim / _OWN_WIDTH / 32) * 32)


def _gpt(config: SEMConfig) -> GPT:
    return GPT(config.model.vocab_size, width=_beside(config, 128))


def _gru(config: SEMConfig) -> GRU:
    return GRU(config.model.vocab_size, embedding=_beside(config, 128), width=_beside(config, 320))


def _mingru(config: SEMConfig) -> MinGRU:
    return MinGRU(config.model.vocab_size, width=_beside(config, 128))


_ENTRANTS = {
    entrant.name: entrant
    for entrant in (
        Entrant("sem", SEMModel),
        _peer("mingru", _mingru, rows=4, rate=6e-3, muon=0.02),
        _peer("gru", _gru, rows=16, rate=3e-3, muon=0.04, weight_decay=0.01),
        _peer("gpt", _gpt, rows=4, rate=4e-3, muon=0.02, warmup=100),
        _peer("mingru", _mingru, rows=8, rate=3e-3),
        _peer("gru", _gru, rows=16, rate=3e-3, weight_decay=0.01),
        _peer("gpt", _gpt, rows=8, rate=2e-3, warmup=100),
    )
}
ENTRANTS = {name: _ENTRANTS[name] for name in NAMES}
"""By name; the peers grow with ``model.hidden_dim``."""
