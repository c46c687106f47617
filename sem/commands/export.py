"""``sem export``: a run's model as a folder for others to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser

HELP = "write a run's model as a folder for the hub and transformers"


def add_arguments(parser: Parser) -> None:
    """The run, the folder to make, and whose parameters to take."""
    parser.add_argument("run", help="the run's folder, or a checkpoint")
    parser.add_argument("--checkpoint", help="a checkpoint; default: the run's newest")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--ema", action="store_true", help="the averages over training, training.ema_decay")
    parser.add_argument("--title", help="what the model card calls the model; default: the folder's name")


def run(options: Namespace) -> int:
    """Write the folder; prints the number of parameters and the run's scores, or why there are none."""
    from sem.hub.export import export_run

    model = export_run(
        options.run, options.output, checkpoint=options.checkpoint, averaged=options.ema, title=options.title
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    origin = model.origin
    measured = ", ".join(f"{name} {value:.4g}" for name, value in origin.figures.items()) or origin.why_unmeasured
    print(f"{options.output}: {count:,} parameters after step {origin.step}; {measured}")
    return 0
