"""Files that are complete or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

TEMPORARY = ".writing"
"""What the name of a file ends in while it is being written."""


@contextlib.contextmanager
def replacing(target: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write to; when the block ends without an error it has become ``target``, durably.

    Until then, and after an error, ``target`` is what it was before: the bytes go to a file beside it, which is flushed
    to the disk and renamed. Folders that are missing are made.

    Raises:
        OSError: the file could not be written; what was written of it is removed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes" / "first.txt"
        >>> with replacing(path) as file:
        ...     _ = file.write(b"complete")
        >>> path.read_text()
        'complete'
    """
    target = Path(target)
    temporary = target.with_name(target.name + TEMPORARY)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def free_name(path: Path) -> Path:
    """``path``, or with ``-2``, ``-3``, ... behind its name, if there is something of that name."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def write_text(target: str | Path, text: str) -> None:
    """Make ``text`` (UTF-8) the content of ``target``, all of it or nothing.

    Raises:
        OSError: as :func:`replacing`.
    """
    with replacing(target) as file:
        file.write(text.encode("utf-8"))


def save_figure(figure: Any, target: str | Path, *, dpi: int) -> None:
    """Draw a matplotlib figure into ``target``, whose suffix gives the format, all of it or nothing.

    Raises:
        OSError: as :func:`replacing`.
    """
    with replacing(target) as file:
        figure.savefig(file, dpi=dpi, format=Path(target).suffix.removeprefix(".") or None)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; only POSIX lets a folder be opened for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
