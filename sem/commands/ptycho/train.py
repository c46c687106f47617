"""``sem ptycho train``: train a network on a scan, and keep the run in its folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sem.commands import training_run
from sem.ptycho.training.settings import NetworkConfig

if TYPE_CHECKING:
    from sem.ptycho.training.trainer import NetworkTrainer

HELP = "train a network that turns patterns into patches of the object, by the physics alone"
SHORT = {
    "scan": "data.train",
    "test": "data.test",
    "output": "training.output_dir",
    "architecture": "generator.architecture",
    "width": "generator.width",
    "blocks": "generator.blocks",
    "modes": "generator.modes",
    "max-hidden": "generator.max_hidden",
    "layerscale-init": "generator.layerscale_init",
    "block-norm": "generator.block_norm",
    "overlap": "training.overlap",
    "loss": "training.loss",
    "optimizer": "training.optimizer",
    "learning-rate": "training.learning_rate",
    "weight-decay": "training.weight_decay",
    "momentum": "training.momentum",
    "beta1": "training.beta1",
    "beta2": "training.beta2",
    "scheduler": "training.scheduler",
    "warmup-steps": "training.warmup_steps",
    "min-lr-ratio": "training.lr_min_ratio",
    "grad-clip": "training.gradient_clip",
    "grad-clip-algorithm": "training.gradient_clip_kind",
    "grad-norm-log-freq": "training.gradients_every",
    "steps": "training.max_steps",
    "minutes": "training.max_minutes",
    "batch-size": "training.batch_size",
    "seed": "training.seed",
    "engine": "training.engine",
    "threads": "training.num_threads",
}
"""Options that are short for a setting."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--resume``, ``--overwrite``, every setting of a network's training, and short forms of many."""
    training_run.add_arguments(parser)
    for name, key in SHORT.items():
        info = NetworkConfig.settings()[key]
        text = f"short for --{key}: {info.help}".replace("%", "%%")
        parser.add_argument(f"--{name}", metavar=info.name.upper(), help=text)
    NetworkConfig.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Train to the end or to Ctrl-C; prints the scores of a finished run, else how to continue it."""
    from sem.training.memory import keep_freed_memory

    keep_freed_memory()
    short = {f"--{name}": (key, getattr(options, name.replace("-", "_"))) for name, key in SHORT.items()}
    config = training_run.configured(options, NetworkConfig, short)
    if not config.data.train:
        raise ValueError("data.train: expected the file of a scan, got none; give it with --scan FILE")
    trainer = _trainer(config)
    result = trainer.fit(resume=options.resume, overwrite=options.overwrite)
    if trainer.ranks.is_first:
        names = ("val_loss", "train_amp_ssim", "test_amp_ssim", "test_phase_ssim")
        found = {name: result.figures[name] for name in names if result.figures.get(name) is not None}
        scores = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items()]
        print(training_run.last_line(result, config.training.output_dir, "sem ptycho train", scores))
    return 0


def _trainer(config: NetworkConfig) -> NetworkTrainer:
    if config.training.engine == "loop":
        from sem.ptycho.training.trainer import NetworkTrainer

        return NetworkTrainer(config)
    from sem.ptycho.training.lightning import NetworkLightningTrainer

    return NetworkLightningTrainer(config)
