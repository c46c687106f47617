"""The command ``sem`` and its subcommands; each is a module of :mod:`sem.commands`.

Exit status: 0 done (a run that Ctrl-C ended included), 1 failed, 2 wrong arguments or configuration. An error
is one line; the environment variable ``SEM_TRACEBACK=1`` shows where it came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from sem.commands import check, diffraction, generate, info, launch, report, tokenizer, trace, train
from sem.config import check_option_names

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

FAILED, WRONG_USE = 1, 2
COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "generate": generate,
    "check": check,
    "info": info,
    "report": report,
    "launch": launch,
    "tokenizer": tokenizer,
    "trace": trace,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sem`` with ``arguments`` (those of the process by default) and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["bench"]:
        return _bench(arguments[1:])
    try:
        if arguments[:1] == ["diffraction"]:  # its flags have one dash, which the parser below does not know
            return diffraction.main(arguments[1:])
        parser = _parser()
        check_option_names(arguments)
        parsed = parser.parse_args(arguments)
        if parsed.command is None:
            parser.print_help()
            return WRONG_USE
        return COMMANDS[parsed.command].run(parsed[parsed.command])
    except ValueError as error:
        return _fail(error, WRONG_USE)
    except (RuntimeError, ArithmeticError, OSError, ImportError) as error:
        return _fail(error, FAILED)


def _bench(arguments: list[str]) -> int:
    from sem import bench

    return bench.main(arguments) or 0


def _parser() -> ArgumentParser:
    try:
        from jsonargparse import ArgumentParser
    except ImportError:
        raise ImportError("the command line needs jsonargparse: pip install 'sem[train]'") from None

    root = ArgumentParser(prog="sem", description="Train and use signal-entropic models.")
    commands = root.add_subcommands(dest="command", required=False)
    for name, module in COMMANDS.items():
        parser = ArgumentParser(description=module.HELP)
        commands.add_subcommand(name, parser, help=module.HELP)
        module.add_arguments(parser)  # after it, for those that have subcommands of their own
    commands.add_subcommand(
        "bench", ArgumentParser(), help="time the operators against their peers; see sem bench --help"
    )
    more = "see sem diffraction --help"
    commands.add_subcommand("diffraction", ArgumentParser(), help=f"{diffraction.HELP}; {more}")
    return root


def _fail(error: Exception, status: int) -> int:
    if os.environ.get("SEM_TRACEBACK", "0") != "0":
        raise error
    print(f"sem: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
