"""``sem ptycho``: a subcommand a module, each with ``HELP``, ``add_arguments(parser)`` and ``run(options)``.

Parsers are argparse's, and only that of the subcommand asked for is built; none of the modules loads torch before its
``run``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

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

HELP = "ptychography: simulate, inspect and reconstruct scans, train networks"
WRONG_USE = 2
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


def main(arguments: Sequence[str]) -> int:
    """Run ``sem ptycho`` with ``arguments`` and return its exit status.

    Raises:
        ValueError: arguments or files that are wrong.
        OSError: a file could not be read or written.
    """
    word = next(iter(arguments), "")
    if word in ("", "-h", "--help"):
        print(_usage(), file=sys.stdout if word else sys.stderr)
        return 0 if word else WRONG_USE
    if word not in SUBCOMMANDS:
        near = difflib.get_close_matches(word, SUBCOMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(SUBCOMMANDS)}"
        raise ValueError(f"sem ptycho {word}: no such subcommand; {hint}")
    module = SUBCOMMANDS[word]
    parser = _Parser(prog=f"sem ptycho {word}", description=f"{module.HELP}.", allow_abbrev=False)
    module.add_arguments(parser)
    options, unknown = parser.parse_known_args(arguments[1:])
    if unknown:
        parser.refuse(unknown[0])
    return module.run(options)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, by an exception."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}; see {self.prog} --help")

    def refuse(self, argument: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(argument.partition("=")[0], known, n=1) if argument.startswith("-") else []
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        what = "unknown option" if argument.startswith("-") else "expected no such argument"
        raise ValueError(f"{argument}: {what}; {hint}")


def _usage() -> str:
    lines = [f"  {name:<12} {module.HELP}" for name, module in SUBCOMMANDS.items()]
    return "\n".join(["usage: sem ptycho SUBCOMMAND ...; sem ptycho SUBCOMMAND --help says more", "", *lines])
