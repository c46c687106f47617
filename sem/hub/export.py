"""A run's model as a folder that from_pretrained, transformers and the hub take: all of it, or nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sem.files import TEMPORARY
from sem.hub.pretrained import PretrainedSEMModel


def export_run(
    run: str | Path,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    averaged: bool = False,
    title: str | None = None,
) -> PretrainedSEMModel:
    """Write the model of ``run`` and its card into a new folder ``output``; returns the model.

    The folder is filled under another name beside ``output`` and renamed when it is complete.

    Args:
        run: a run's folder, or a checkpoint.
        output: must not be there, or be empty; folders above it are made.
        checkpoint: of the run, in place of its newest.
        averaged: the averages over training in place of the last parameters.
        title: what the card calls the model; by default the name of the folder.

    Raises:
        ValueError: ``output`` holds something; or as :meth:`~sem.hub.pretrained.PretrainedSEMModel.from_run`.
        CheckpointError: there is no undamaged checkpoint.
        OSError: the folder cannot be written; what was written of it is removed.
    """
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"output = {str(output)!r}: expected a folder that is not there yet, or empty")
    model = PretrainedSEMModel.from_run(run, checkpoint=checkpoint, averaged=averaged)
    unfinished = target.with_name(target.name + TEMPORARY)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        model.save_pretrained(unfinished, model_card_kwargs={"title": title or target.name})
        os.replace(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return model
