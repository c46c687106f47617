"""``sem ptycho``: a subcommand a module, each with ``HELP``, ``add_arguments(parser)`` and ``run(options)``.

None of the modules loads torch before its ``run``.
"""

from __future__ import annotations

from types import ModuleType

from sem.command_line import Command, command_of
from sem.commands.ptycho import (
    activations,
    check,
    compare,
    convert,
    infer,
    inspect,
    reconstruct,
    simulate,
    sweep,
    train,
)

SUBCOMMANDS: dict[str, ModuleType] = {
    "simulate": simulate,
    "inspect": inspect,
    "convert": convert,
    "reconstruct": reconstruct,
    "train": train,
    "infer": infer,
    "compare": compare,
    "activations": activations,
    "sweep": sweep,
    "check": check,
}

COMMAND = Command(
    help="ptychography: simulate, inspect and reconstruct scans, train networks",
    subcommands={name: command_of(module) for name, module in SUBCOMMANDS.items()},
)
