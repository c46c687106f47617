"""What all readers of files share: the libraries that they need, bytes and text up to a size, errors in a sentence."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import logging
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sem.extras import how_to_install

LARGEST_FILE = 1 << 31
"""Bytes that a file may have."""
LARGEST_CONTENT = 1 << 29
"""Bytes of a file that is read as a whole, and that a compressed one may unpack to."""
LARGEST_IMAGE = 1 << 26
"""Pixels that an image, with all of its panels, may have."""

FAILURES: tuple[type[Exception], ...] = (ArithmeticError, AssertionError, EOFError, LookupError, MemoryError, NameError)
FAILURES += (OSError, RuntimeError, TypeError, ValueError, struct.error)
"""What libraries raise where the bytes of a file make no sense to them."""


def library(name: str, what: str) -> Any:
    """The module ``name``, which ``what`` needs.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ImportError(f"{what} needs {package}: {how_to_install('crystallography')}") from None


def size_of(path: str | Path) -> int:
    """Bytes of a file.

    Raises:
        ValueError: it is not there, is none, or has more than :data:`LARGEST_FILE`.
    """
    try:
        if not Path(path).is_file():
            with open(path, "rb"):  # says whether it is a folder, forbidden or not there
                raise ValueError(f"{path}: expected a file, got a device")
        size = Path(path).stat().st_size
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if size > LARGEST_FILE:
        raise ValueError(f"{path}: expected at most {LARGEST_FILE >> 20} MiB, got {size >> 20} MiB")
    return size


def beginning_of(path: str | Path, size: int) -> bytes:
    """The first bytes of a file, at most ``size``, unpacked if its name ends in ``.gz``.

    Raises:
        ValueError: as :func:`size_of`.
    """
    held = size_of(path)
    try:
        with gzip.open(path) if _is_packed(path) else open(path, "rb") as file:
            return file.read(size if _is_packed(path) else min(size, held))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def content_of(path: str | Path, most: int = LARGEST_CONTENT) -> bytes:
    """All bytes of a file, unpacked if its name ends in ``.gz``.

    Raises:
        ValueError: as :func:`size_of`; it has more than ``most`` bytes, or unpacks to more.
    """
    raw = beginning_of(path, most + 1)
    if len(raw) > most:
        raise ValueError(f"{path}: expected at most {most >> 20} MiB{' unpacked' * _is_packed(path)}, got more")
    return raw


def _is_packed(path: str | Path) -> bool:
    return Path(path).suffix == ".gz"


@contextlib.contextmanager
def failing_as(path: str | Path, expected: str) -> Iterator[None]:
    """Turn what a library raises in the block into one sentence, and keep its own messages from the terminal.

    Raises:
        ValueError: naming the file and what was expected of it.
    """
    logger = logging.getLogger("fabio")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except FAILURES as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise  # a sentence of ours
        raise ValueError(f"{path}: expected {expected} ({one_line(error, path)})") from None
    finally:
        logger.setLevel(level)


def require_pixels(path: str | Path, *shape: int) -> int:
    """The number of pixels of an image of ``shape``.

    Raises:
        ValueError: a side below 1, or more than :data:`LARGEST_IMAGE` in all.
    """
    number = 1
    for side in shape:
        number *= side
    shown = " x ".join(map(str, shape))
    if min(shape) < 1:
        raise ValueError(f"{path}: expected an image with pixels, got {shown}")
    if number > LARGEST_IMAGE:
        raise ValueError(f"{path}: expected at most {LARGEST_IMAGE} pixels, got {shown}")
    return number


def one_line(error: BaseException, path: str | Path = "") -> str:
    """What a library said, as part of a sentence that names the file already."""
    text = " ".join(str(error).split()).strip("'\"")
    for said in (f": {path}", f"{path}: ", f"{path}:", str(path)):
        if str(path):
            text = text.replace(said, "")
    return text[:200].strip() or type(error).__name__
