"""``python -m sem.hub OWNER/NAME FOLDER -- COMMAND ...``: run a training command, keep its run's folder on the hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sem.hub.keeper import FAILED, Keeper
from sem.hub.mirror import RunMirror
from sem.masking import masking


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, or 1 if its run could not be kept."""
    parser = argparse.ArgumentParser(prog="python -m sem.hub", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("repo", help="model repository, owner/name")
    parser.add_argument("folder", help="the run's folder, training.output_dir of the command")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    options = parser.parse_args(arguments)
    with masking():
        return _keep(options)


def _keep(options: argparse.Namespace) -> int:
    try:
        return Keeper(RunMirror(options.folder, options.repo)).run(options.command)
    except (RuntimeError, OSError, ImportError) as error:
        print(f"sem.hub: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
