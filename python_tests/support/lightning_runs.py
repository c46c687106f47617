"""Runs of the toy and of a small real model, by either engine."""

from __future__ import annotations

import signal
from pathlib import Path

import torch
from small_model import SMALL_MODEL
from toy import RecordingDisplay, ToyDiagnostics, ToyModel, toy_config, toy_corpus

from sem.diagnostics import Diagnostics
from sem.model import SEMModel
from sem.training.lightning.engine import SEMLightningTrainer
from sem.training.trainer import SEMTrainer

ENGINES = {"loop": SEMTrainer, "lightning": SEMLightningTrainer}


class StoppingDisplay(RecordingDisplay):
    """Sends this process a signal after step ``stop``."""

    def __init__(self, stop: int | None = None, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.stop, self.number = stop, number

    def update(self, step, share, seconds_left, figures, logged):
        super().update(step, share, seconds_left, figures, logged)
        if step == self.stop:
            signal.raise_signal(self.number)


def build(engine: str, folder: str | Path, *overrides: str, toy: bool = True, **model: int) -> SEMTrainer:
    torch.manual_seed(0)
    config = toy_config(folder, *(() if toy else SMALL_MODEL), *overrides)
    return ENGINES[engine](
        config,
        model=ToyModel(**model) if toy else SEMModel(config),
        corpus=toy_corpus(),
        diagnostics=ToyDiagnostics if toy else Diagnostics,
    )


def train(engine: str, folder: str | Path, *overrides: str, toy: bool = True, stop: int | None = None, **options):
    """Train to the end, or to step ``stop``, with nothing scored and drawn afterwards; returns every step's loss."""
    display = StoppingDisplay(stop)
    build(engine, folder, *overrides, toy=toy).fit(display=display, **options)
    return display.losses
