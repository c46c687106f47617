"""Short runs that learn from a teacher beside the text."""

from __future__ import annotations

import torch
from small_model import SMALL_MODEL
from toy import RecordingDisplay, toy_corpus

from sem.config import SEMConfig
from sem.training.run_folder import open_checkpoint
from sem.training.trainer import SEMTrainer

RUN = (
    "training.batch_size=4",
    "training.micro_batch_size=2",
    "training.max_steps=6",
    "training.warmup_steps=0",
    "training.decay_steps=0",
    "training.learning_rate=0.02",
    "training.checkpoint_every=3",
    "training.keep_checkpoints=9",
    "training.eval_every=100",
    "training.eval_batches=2",
    "training.num_threads=1",
    "training.loggers=[]",
    "training.seed=3",
    "generation.max_new_tokens=2",
)


def config_of(folder, *overrides):
    """Of a run in ``folder``."""
    return SEMConfig().with_overrides(*SMALL_MODEL, *RUN, f"training.output_dir={folder}", *overrides)


def trained(folder, *overrides, kind=SEMTrainer, resume=None):
    """The parameters after a run, and the figures of its last step."""
    trainer = kind(config_of(folder, *overrides), corpus=toy_corpus())
    result = trainer.fit(resume=resume, display=RecordingDisplay())
    return open_checkpoint(folder)[1]["model"], result.figures


def learning_from(teacher, weight=0.5, temperature=2.0):
    """Settings of a run that has ``teacher``."""
    return (
        f"distillation.teacher={teacher}",
        f"distillation.weight={weight}",
        f"distillation.temperature={temperature}",
    )


def same_bits(first, second):
    """Whether two sets of parameters are the same."""
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items())
