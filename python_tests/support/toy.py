"""A language model of a few hundred parameters with SEMModel's contract, its data, and runs made of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sem.config import SEMConfig
from sem.data import Corpus, Documents
from sem.training.progress import ProgressDisplay
from sem.training.trainer import SEMTrainer

HEALTHY = {
    "unitary_divergence": 0.5,
    "unitarity_deviation": 1e-6,
    "cg_residual": 1e-6,
    "cg_true_residual": 1e-6,
    "cg_iterations_mean": 3.0,
    "cg_iterations_max": 4.0,
    "sdr_sparsity": 0.8,
    "phase_entropy_before": 0.90,
    "phase_entropy_after": 0.91,
    "phase_coherence": 0.2,
}


class ToyModel(nn.Module):
    """Embedding, dropout (a user of random numbers) and GRU; from call ``fail_from`` on, the loss is NaN."""

    def __init__(self, width: int = 8, vocab_size: int = 260, fail_from: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(0.1)
        self.mixer = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab_size)
        self.fail_from = fail_from
        self.calls = 0

    def forward(self, tokens, targets=None, diagnostics=None):
        if targets is not None:
            return self.loss(tokens, targets, diagnostics)
        return self.head(self.mixer(self.dropout(self.embedding(tokens)))[0]).log_softmax(dim=-1)

    def prefill(self, tokens, state=None):
        mixed, state = self.mixer(self.embedding(tokens), state)
        return self.head(mixed[:, -1]).log_softmax(dim=-1), state

    def step(self, token, state):
        return self.prefill(token.unsqueeze(1), state)

    def loss(self, tokens, targets, diagnostics=None):
        self.calls += self.training
        log_probabilities = self(tokens)
        nll = nn.functional.nll_loss(log_probabilities.flatten(0, 1), targets.flatten(), reduction="sum")
        loss = nll / (targets >= 0).sum()
        if self.fail_from is not None and self.training and self.calls >= self.fail_from:
            loss = loss * float("nan")
        return {"loss": loss, "nll_sum": nll.detach(), "unitary_divergence": nll.detach() * 0 + 0.5}


class ToyDiagnostics:
    """Measures what it is told to."""

    def __init__(self, **figures: float) -> None:
        self.figures = HEALTHY | figures

    def summary(self) -> dict[str, float]:
        return dict(self.figures)


class RecordingDisplay(ProgressDisplay):
    """Remembers each step's loss and each message, and shows nothing."""

    def __init__(self) -> None:
        super().__init__(())
        self._live = None
        self.losses: list[float] = []
        self.messages: list[str] = []

    def update(self, step, share, seconds_left, figures, logged):
        self.losses.append(figures["loss"])

    def message(self, text):
        self.messages.append(text)


def toy_corpus() -> Corpus:
    """30 documents of a repeating phrase; an epoch is about 21 micro-batches of 2 rows of 16 tokens."""
    documents = [b"the wave number %d returns. " % n for n in range(30)]
    return Corpus(Documents.from_bytes(documents[:24]), Documents.from_bytes(documents[24:]))


def toy_config(folder: str | Path, *overrides: str) -> SEMConfig:
    return SEMConfig().with_overrides(
        "model.max_seq_length=16",
        "encoder.kind=transport",
        "propagator.pit_enabled=true",
        "training.batch_size=4",
        "training.micro_batch_size=2",
        "training.max_steps=12",
        "training.warmup_steps=2",
        "training.decay_steps=4",
        "training.learning_rate=0.01",
        "training.log_every=1",
        "training.eval_every=5",
        "training.eval_batches=1",
        "training.health_every=4",
        "training.checkpoint_every=3",
        "training.num_threads=1",
        "generation.max_new_tokens=8",
        f"training.output_dir={folder}",
        *overrides,
    )


def toy_trainer(folder: str | Path, *overrides: str, **model: int) -> SEMTrainer:
    torch.manual_seed(0)
    return SEMTrainer(
        toy_config(folder, *overrides),
        model=ToyModel(**model),
        corpus=toy_corpus(),
        diagnostics=ToyDiagnostics,
    )


def losses_of(folder: str | Path, *overrides: str, resume: str | None = None) -> list[float]:
    """Train in ``folder`` and return every step's loss."""
    display = RecordingDisplay()
    toy_trainer(folder, *overrides).fit(resume=resume, display=display)
    return display.losses
