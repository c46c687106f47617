"""``sem train``: train a model and keep the run in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sem.config import SEMConfig, add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sem.training.trainer import SEMTrainer

HELP = "train a model and keep the run in training.output_dir"
SHORT = {
    "engine": "training.engine",
    "precision": "training.precision_mode",
    "devices": "training.devices",
    "num_nodes": "training.num_nodes",
    "strategy": "training.strategy",
}
"""Options that are short for a setting."""


def add_arguments(parser: ArgumentParser) -> None:
    where = (
        "continue a checkpoint or a run's folder, with its settings unless --config is given; "
        "'auto' or nothing: continue what training.output_dir holds, or start there"
    )
    parser.add_argument("--resume", nargs="?", const="auto", metavar="WHERE", help=where)
    parser.add_argument("--overwrite", action="store_true", help="replace the run in training.output_dir")
    for name, key in SHORT.items():
        option = name.replace("_", "-")
        parser.add_argument(f"--{option}", metavar=name.upper(), help=f"short for --{key}")
    parser.add_argument("--no-compile", action="store_true", help="short for --training.compile false")
    add_config_arguments(parser)


def run(options: Namespace) -> int:
    from sem.training.memory import keep_freed_memory
    from sem.training.run_folder import AUTO_RESUME

    keep_freed_memory()
    _spell_out(options)
    resume = options.resume
    config = _resumed_config(options) if resume not in (None, AUTO_RESUME) else config_from_arguments(options)
    trainer = _trainer(config)
    result = trainer.fit(resume=resume, overwrite=options.overwrite)
    if not trainer.ranks.is_first:
        return 0
    folder = config.training.output_dir
    if result.interrupted_by is not None:
        advice = f"continue with: sem train --resume {folder}"
        print(f"{result.interrupted_by}: stopped after step {result.step}; {advice}")
        return 0
    held_out = result.figures.get("val_bits_per_byte")
    score = "" if held_out is None else f", {held_out:.4f} bits per byte on held-out text"
    print(f"done after step {result.step}{score}; see {folder}")
    return 0


def _trainer(config: SEMConfig) -> SEMTrainer:
    from sem.training.trainer import SEMTrainer

    if config.training.engine == "loop":
        return SEMTrainer(config)
    from sem.training.lightning import SEMLightningTrainer

    return SEMLightningTrainer(config)


def _spell_out(options: Namespace) -> None:
    """Give the settings that a short option stands for the value it was given."""
    short = {f"--{name.replace('_', '-')}": (key, options[name]) for name, key in SHORT.items()}
    short["--no-compile"] = ("training.compile", "false" if options.no_compile else None)
    for option, (key, value) in short.items():
        if value is None:
            continue
        if options[key] is not None:
            raise ValueError(
                f"{option} and --{key} = {options[key]}: expected one of the two, they are the same setting"
            )
        options[key] = value


def _resumed_config(options: Namespace) -> SEMConfig:
    """The given configuration, or without ``--config`` the run's own; options of the command line win."""
    from sem.training.run_folder import run_folder_of

    if options.config is not None:
        return config_from_arguments(options)
    if not Path(options.resume).exists():
        raise ValueError(f"--resume {options.resume}: expected a checkpoint, a run's folder or 'auto'")
    folder = run_folder_of(Path(options.resume))
    options.config = [str(folder / "config.yaml")]
    config = config_from_arguments(options)
    moved = options.training.output_dir is None
    return config.with_overrides(f"training.output_dir={folder}") if moved else config
