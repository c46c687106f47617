"""Values of the command line, checked where they are read; and the thread count that they ask for."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

from sem.extras import how_to_install


def at_least(least: int) -> Callable[[str], int]:
    """An integer of at least ``least``."""

    def count(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
        return value

    return count


def writable(text: str) -> Path:
    """A file that can be written, as far as its folder tells."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, got {text!r}")
    return path


def picture(text: str) -> Path:
    """A file to draw to; what draws must be installed, or minutes of measuring would end in an error."""
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError(f"a plot needs matplotlib: {how_to_install('train')}")
    return writable(text)
