"""``sem sweep``: train arms of a configuration with several seeds each, and compare them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sem.commands import sweeping
from sem.config import SEMConfig

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser

HELP = "train arms of a configuration with several seeds each, compare them, search numbers"
LANGUAGE_MODEL = sweeping.Wing(
    config=SEMConfig,
    command=("train",),
    seeds=("training.seed", "data.shuffle_seed"),  # weights and order of the text; which is held out stays the same
    figures=lambda base: [
        ("val_bits_per_byte", "held-out bits per byte", "lower", None),
        ("val_loss", "held-out loss", "lower", None),
    ],
)


def add_arguments(parser: Parser) -> None:
    """The options of a sweep, and every setting of a configuration."""
    sweeping.add_arguments(parser, LANGUAGE_MODEL)


def run(options: Namespace) -> int:
    """Run and judge the sweep, see :func:`sem.commands.sweeping.run`."""
    return sweeping.run(options, LANGUAGE_MODEL, ("sweep",))
