"""Text files of numbers: rows of structure factors, orientation matrices, sources."""

from __future__ import annotations

import gzip
import itertools
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sem.diffraction.beam import SourceRow
from sem.diffraction.parameters import ANGSTROM

_BLANK, _SEPARATORS = re.compile(r"\s+"), re.compile(r"[\s,;:]+")
_LARGEST = 1 << 28  # bytes of a text file, unpacked


def read_matrix(path: str | Path, wavelength: float) -> Tensor:
    """a*, b*, c* as rows ``[3, 3]`` in 1/Å. A MOSFLM orientation matrix has them as columns, times ``wavelength`` in Å.

    The nine numbers with which the file begins are read row by row, wherever its lines end.

    Raises:
        ValueError: the file cannot be read or does not begin with nine numbers.
    """
    rows = _numbers(path, "nine in all: a*, b* and c* along each axis", least=1)
    numbers = list(itertools.islice(itertools.chain.from_iterable(rows), 9))
    if len(numbers) < 9:
        raise ValueError(f"{path}: expected nine numbers, a*, b* and c* along each axis, got {len(numbers)}")
    return torch.tensor(numbers, dtype=torch.float64).reshape(3, 3).T / wavelength


def read_sources(path: str | Path) -> tuple[SourceRow, ...]:
    """The rows of a source file: ``x y z``, and where given ``weight`` and ``wavelength`` in metres.

    Blanks, commas, semicolons and colons separate the numbers.

    Raises:
        ValueError: the file cannot be read, has no row, or has one that is not three to five numbers.
    """
    sources = []
    for row in _numbers(path, "x y z weight wavelength", least=3, separators=_SEPARATORS):
        weight = row[3] if len(row) > 3 else 1.0
        wavelength = row[4] / ANGSTROM if len(row) > 4 else None
        sources.append(SourceRow((row[0], row[1], row[2]), weight, wavelength))
    return tuple(sources)


def read_rows(path: str | Path, what: str, least: int) -> np.ndarray:
    """The first ``least`` numbers of each row, float64 ``[rows, least]``, without blank lines and what follows ``#``.

    Raises:
        ValueError: the file cannot be read, has no row, or has one with fewer numbers; ``what`` says what they are.
    """
    return np.array([row[:least] for row in _numbers(path, what, least)])


def read_words(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each row and its number from 1, without blank lines and what follows ``#``.

    Raises:
        ValueError: the file cannot be read.
    """
    for line, text in enumerate(_lines(path), start=1):
        if words := text.partition("#")[0].split():
            yield line, words


def _numbers(path: str | Path, what: str, least: int, separators: re.Pattern[str] = _BLANK) -> Iterator[list[float]]:
    empty = True
    for line, text in enumerate(_lines(path), start=1):
        words = [word for word in separators.split(text.partition("#")[0]) if word]
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) < least or not all(map(math.isfinite, row)):
            raise ValueError(
                f"{path}, line {line}: expected {least} or more finite numbers, {what}, got {text.strip()!r}"
            )
        empty = False
        yield row
    if empty:
        raise ValueError(f"{path}: expected rows of numbers, {what}, got none")


def _lines(path: str | Path) -> list[str]:
    try:
        if Path(path).suffix == ".gz":
            with gzip.open(path) as file:
                raw = file.read(_LARGEST + 1)
        else:
            raw = Path(path).read_bytes()
        if len(raw) > _LARGEST:
            raise ValueError(f"{path}: expected at most {_LARGEST >> 20} MiB of text")
        return raw.decode("utf-8").splitlines()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read ({reason})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a text file, got other bytes") from None
