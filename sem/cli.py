"""The command ``sem`` and its subcommands; each is a module of :mod:`sem.commands`.

Exit status: 0 done (a run that Ctrl-C ended included), 1 failed, 2 wrong arguments or configuration, 130 ended by
Ctrl-C where nothing is kept. An error is one line; ``sem --debug ...``, or ``SEM_TRACEBACK=1`` in the environment,
shows where it came from. What is no error of the user or the machine is a bug, and shows it in any case. Secrets the
process knows are masked in all that it prints.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

import sem
from sem import bench
from sem.command_line import Command, command_of, completed, guarded, perform
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
    serve,
    sweep,
    tokenizer,
    trace,
    train,
)

COMMANDS: dict[str, Command] = {
    "train": command_of(train),
    "generate": command_of(generate),
    "serve": command_of(serve),
    "export": command_of(export),
    "check": command_of(check),
    "info": command_of(info),
    "report": command_of(report),
    "activations": command_of(activations),
    "launch": command_of(launch),
    "sweep": command_of(sweep),
    "tokenizer": tokenizer.COMMAND,
    "trace": trace.COMMAND,
    "bench": bench.command(),
    "diffraction": diffraction.COMMAND,
    "ptycho": ptycho.COMMAND,
}
SEM = Command(
    help="train and use signal-entropic models, simulate diffraction, reconstruct scans",
    subcommands=COMMANDS,
    notes="\n  --version    the version\n  --debug      in front of a command: the traceback of its error too",
)


FEW_COLLECTIONS = (20_000, 20, 20)
"""Thresholds of the garbage collector: importing torch makes some hundred thousand objects that all stay, and looking
for garbage among them again and again is a tenth of a short command's time."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sem`` with ``arguments`` (those of the process by default) and return its exit status."""
    gc.set_threshold(*FEW_COLLECTIONS)
    completed(("sem",), SEM)
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = words[:1] == ["--debug"]
    words = words[debug:]
    return guarded(lambda: _run(words), debug=debug or os.environ.get("SEM_TRACEBACK", "0") != "0")


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"sem {sem.__version__}")
        return 0
    return perform(("sem",), SEM, words)


if __name__ == "__main__":
    sys.exit(main())
