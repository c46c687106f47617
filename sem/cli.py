"""The command ``sem`` and its subcommands; each is a module of :mod:`sem.commands`.

Exit status: 0 done (a run that Ctrl-C ended included), 1 failed, 2 wrong arguments or configuration, 130 ended by
Ctrl-C where nothing is kept. An error is one line; ``sem --debug ...``, or ``SEM_TRACEBACK=1`` in the environment,
shows where it came from. What is no error of the user or the machine is a bug, and shows it in any case. Secrets the
process knows are masked in all that it prints.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from sem.commands import (
    activations,
    check,
    diffraction,
    export,
    generate,
    info,
    launch,
    ptycho,
    report,
    sweep,
    tokenizer,
    trace,
    train,
)
from sem.config import check_option_names
from sem.extras import how_to_install
from sem.masking import masking

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

FAILED, WRONG_USE, STOPPED = 1, 2, 130
COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "generate": generate,
    "export": export,
    "check": check,
    "info": info,
    "report": report,
    "activations": activations,
    "launch": launch,
    "sweep": sweep,
    "tokenizer": tokenizer,
    "trace": trace,
}


def _bench(arguments: Sequence[str]) -> int:
    from sem import bench

    return bench.main(arguments) or 0


OWN_PARSERS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "bench": (_bench, "time the operators against their peers"),
    "diffraction": (diffraction.main, diffraction.HELP),  # whose flags have one dash
    "ptycho": (ptycho.main, ptycho.HELP),
}
"""Commands that read their arguments themselves, with what the overview says of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sem`` with ``arguments`` (those of the process by default) and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = arguments[:1] == ["--debug"] or os.environ.get("SEM_TRACEBACK", "0") != "0"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows few letters gets the rest spelled out
            stream.reconfigure(errors="backslashreplace")
    with masking():
        try:
            status = _run(arguments[1:] if arguments[:1] == ["--debug"] else arguments)
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # whoever read the output has had enough
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except KeyboardInterrupt:
            print("\nsem: stopped by Ctrl-C", file=sys.stderr)
            return STOPPED
        except Exception as error:
            if debug:
                raise
            return _fail(error)


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in OWN_PARSERS:
        return OWN_PARSERS[arguments[0]][0](arguments[1:])
    parser = _parser()
    check_option_names(arguments)
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
        return WRONG_USE
    return COMMANDS[parsed.command].run(parsed[parsed.command])


def _parser() -> ArgumentParser:
    try:
        from jsonargparse import ArgumentParser
    except ImportError:
        raise ImportError(f"the command line needs jsonargparse: {how_to_install('train')}") from None

    root = ArgumentParser(prog="sem", description="Train and use signal-entropic models.")
    commands = root.add_subcommands(dest="command", required=False)
    for name, module in COMMANDS.items():
        parser = ArgumentParser(description=module.HELP)
        commands.add_subcommand(name, parser, help=module.HELP)
        module.add_arguments(parser)  # after it, for those that have subcommands of their own
    for name, (_, text) in OWN_PARSERS.items():
        commands.add_subcommand(name, ArgumentParser(), help=f"{text}; see sem {name} --help")
    return root


def _fail(error: Exception) -> int:
    """Say in one line what went wrong; of a bug, all that a report needs."""
    text = " ".join(str(error).split("\n")) if isinstance(error, OSError) else str(error)
    if isinstance(error, ValueError):
        print(f"sem: {text}", file=sys.stderr)
        return WRONG_USE
    if isinstance(error, MemoryError):
        print(f"sem: not enough memory{f' ({text})' if text else ''}", file=sys.stderr)
    elif isinstance(error, (RuntimeError, ArithmeticError, OSError, ImportError, EOFError)):
        print(f"sem: {text or type(error).__name__}", file=sys.stderr)
    else:
        traceback.print_exception(error)
        print("sem: this is a bug; please report it with the lines above and what sem info prints", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
