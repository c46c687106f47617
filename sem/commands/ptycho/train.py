"""``sem ptycho train``: train a network on a scan, and keep the run in its folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

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
    "steps": "training.max_steps",
    "minutes": "training.max_minutes",
    "batch-size": "training.batch_size",
    "seed": "training.seed",
    "engine": "training.engine",
    "threads": "training.num_threads",
}
"""Options that are short for a setting."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = (
        "continue a checkpoint or a run's folder, with its settings unless --config is given; "
        "'auto' or nothing: continue what training.output_dir holds, or start there"
    )
    parser.add_argument("--resume", nargs="?", const="auto", metavar="WHERE", help=where)
    parser.add_argument("--overwrite", action="store_true", help="replace the run in training.output_dir")
    for name, key in SHORT.items():
        info = NetworkConfig.settings()[key]
        text = f"short for --{key}: {info.help}".replace("%", "%%")
        parser.add_argument(f"--{name}", metavar=info.name.upper(), help=text)
    NetworkConfig.add_arguments(parser.add_argument_group("all settings"))


def run(options: argparse.Namespace) -> int:
    from sem.training.memory import keep_freed_memory
    from sem.training.run_folder import AUTO_RESUME

    keep_freed_memory()
    _spell_out(options)
    resume = options.resume
    config = _resumed(options) if resume not in (None, AUTO_RESUME) else NetworkConfig.from_arguments(options)
    if not config.data.train:
        raise ValueError("data.train: expected the file of a scan, got none; give it with --scan FILE")
    trainer = _trainer(config)
    result = trainer.fit(resume=resume, overwrite=options.overwrite)
    if not trainer.ranks.is_first:
        return 0
    folder = config.training.output_dir
    if result.interrupted_by is not None:
        advice = f"continue with: sem ptycho train --resume {folder}"
        print(f"{result.interrupted_by}: stopped after step {result.step}; {advice}")
        return 0
    scores = [
        f"{name.replace('_', ' ')} {result.figures[name]:.4f}"
        for name in ("val_loss", "train_amp_ssim", "test_amp_ssim", "test_phase_ssim")
        if result.figures.get(name) is not None
    ]
    print(", ".join([f"done after step {result.step}", *scores]) + f"; see {folder}")
    return 0


def _trainer(config: NetworkConfig) -> NetworkTrainer:
    if config.training.engine == "loop":
        from sem.ptycho.training.trainer import NetworkTrainer

        return NetworkTrainer(config)
    from sem.ptycho.training.lightning import NetworkLightningTrainer

    return NetworkLightningTrainer(config)


def _spell_out(options: argparse.Namespace) -> None:
    """Give the settings that a short option stands for the value it was given."""
    for name, key in SHORT.items():
        value = getattr(options, name.replace("-", "_"))
        if value is None:
            continue
        if getattr(options, key) is not None:
            raise ValueError(f"--{name} and --{key}: expected one of the two, they are the same setting")
        setattr(options, key, value)


def _resumed(options: argparse.Namespace) -> NetworkConfig:
    """The given configuration, or without ``--config`` the run's own; options of the command line win."""
    from sem.training.run_folder import run_folder_of

    if options.config is not None:
        return NetworkConfig.from_arguments(options)
    if not Path(options.resume).exists():
        raise ValueError(f"--resume {options.resume}: expected a checkpoint, a run's folder or 'auto'")
    folder = run_folder_of(Path(options.resume))
    options.config = [str(folder / "config.yaml")]
    config = NetworkConfig.from_arguments(options)
    moved = getattr(options, "training.output_dir") is None
    return config.with_overrides(f"training.output_dir={folder}") if moved else config
