"""The model that a run has trained, opened to be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from sem.config import SEMConfig
from sem.data import Tokenizer, tokenizer_of
from sem.model import SEMModel
from sem.training.checkpoint import load_parameters
from sem.training.devices import prepare_for_device, resolve_device, use_threads
from sem.training.run_folder import open_checkpoint, run_folder_of, saved_config, saved_step


@dataclass(frozen=True)
class TrainedModel:
    """A run's model with what belongs to it.

    Attributes:
        model: in evaluation mode, on the device that was asked for.
        tokenizer: of the model's text.
        config: of the run, with the overrides.
        folder: the run's.
        checkpoint: the file that the parameters come from.
        step: the training step they had been trained for, where the checkpoint tells.
        note: what an XPU device runs with, for the user to read; None for other devices.
    """

    model: SEMModel
    tokenizer: Tokenizer
    config: SEMConfig
    folder: Path
    checkpoint: Path
    step: int | None
    note: str | None


def open_trained_model(
    run: str | Path,
    overrides: Iterable[str] = (),
    *,
    checkpoint: str | Path | None = None,
    num_threads: int | None = None,
) -> TrainedModel:
    """The model of a run, ready to compute.

    Args:
        run: a run's folder, of which the newest undamaged checkpoint is taken, or a checkpoint.
        overrides: settings as a command line gives them; ``training.device`` says where the model goes.
        checkpoint: another checkpoint to take; the tokenizer is the run's all the same.
        num_threads: CPU threads for torch; None leaves its own choice.

    Raises:
        CheckpointError: there is no checkpoint, or none that is undamaged.
        ValueError: the checkpoint is not this model's, an override is impossible, the device is not on this machine, or
            the tokenizer's file cannot be read, or the number of threads cannot be.

    Example:
        >>> open_trained_model("no/such/run")
        Traceback (most recent call last):
        sem.training.checkpoint.CheckpointMissing: no/such/run: there is no such checkpoint
    """
    path, content = open_checkpoint(run if checkpoint is None else checkpoint)
    config = saved_config(content, overrides)
    folder = run_folder_of(Path(run))
    tokenizer = tokenizer_of(config, folder)
    device = resolve_device(config.training.device)
    if num_threads is not None:
        use_threads(num_threads)
    with torch.random.fork_rng(devices=()):  # whoever opens it, in the middle of a training say, draws as before
        model = SEMModel(config)
    load_parameters(model, content)
    note = prepare_for_device(model.to(device).eval(), None, device)
    return TrainedModel(model, tokenizer, config, folder, path, saved_step(content), note)
