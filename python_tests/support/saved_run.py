"""A run's folder without its training."""

from __future__ import annotations

from pathlib import Path

import torch
from small_model import SMALL_MODEL

from sem.config import SEMConfig
from sem.data.tokenizer import ByteTokenizer
from sem.model import SEMModel
from sem.training.checkpoint import CheckpointStore


def saved_run(folder: str | Path, *overrides: str, seed: int = 1, step: int = 5, endless: bool = False) -> Path:
    """The folder of a run whose newest checkpoint holds a model as ``seed`` initialises it.

    An ``endless`` one never draws the end of the document, so that a long answer lasts until it is stopped.
    """
    config = SEMConfig().with_overrides(*SMALL_MODEL, *overrides)
    torch.manual_seed(seed)
    weights = SEMModel(config).state_dict()
    if endless:
        weights["sampler.bias"][ByteTokenizer.eos] = -1e4
    content = {"config": config.to_dict(), "model": weights, "loop": {"step": step}}
    CheckpointStore(Path(folder) / "checkpoints").save(step, content)
    return Path(folder)
