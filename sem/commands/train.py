"""``sem train``: train a model and keep the run in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sem.commands import training_run
from sem.config import SEMConfig, add_config_arguments

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser
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


def add_arguments(parser: Parser) -> None:
    """``--resume``, ``--overwrite``, short forms, and every setting of a configuration."""
    training_run.add_arguments(parser)
    for name, key in SHORT.items():
        option = name.replace("_", "-")
        parser.add_argument(f"--{option}", metavar=name.upper(), help=f"short for --{key}")
    parser.add_argument("--no-compile", action="store_true", help="short for --training.compile false")
    add_config_arguments(parser)


def run(options: Namespace) -> int:
    """Train to the end or to Ctrl-C; prints the score of a finished run, else how to continue it."""
    from sem.training.memory import keep_freed_memory

    keep_freed_memory()
    short = {f"--{name.replace('_', '-')}": (key, getattr(options, name)) for name, key in SHORT.items()}
    short["--no-compile"] = ("training.compile", "false" if options.no_compile else None)
    trainer = _trainer(training_run.configured(options, SEMConfig, short))
    result = trainer.fit(resume=options.resume, overwrite=options.overwrite)
    if trainer.ranks.is_first:
        held_out = result.figures.get("val_bits_per_byte")
        scores = [] if held_out is None else [f"{held_out:.4f} bits per byte on held-out text"]
        print(training_run.last_line(result, trainer.config.training.output_dir, "sem train", scores))
    return 0


def _trainer(config: SEMConfig) -> SEMTrainer:
    from sem.training.trainer import SEMTrainer

    if config.training.engine == "loop":
        return SEMTrainer(config)
    from sem.training.lightning import SEMLightningTrainer

    return SEMLightningTrainer(config)
