"""A trace: named values in the order in which they were computed, as a text file of lines ``name = value ...``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sem.files import write_text

_FIRST_LINE = "# sem trace"
# Programs that print traces put a word and a colon before the name: "TRACE: h = 1.5".
_LABEL = re.compile(r"\w+:\s+")


class Entry(NamedTuple):
    """A quantity: a number, or several under one name."""

    name: str
    values: tuple[float, ...]


class Trace:
    """Entries in order, and a header of what was computed, where and how. A name may occur again.

    Example:
        >>> trace = Trace({"operator": "square"})
        >>> trace.add("x", torch.tensor([1.0, 0.1]))
        >>> trace.add("y", 0.5)
        >>> print(trace.text(), end="")
        # sem trace
        # operator: square
        x = 1.0 0.10000000149011612
        y = 0.5
    """

    def __init__(self, header: Mapping[str, object] | None = None, entries: Iterable[Entry] = ()) -> None:
        self.header = {name: str(value) for name, value in (header or {}).items()}
        self.entries = list(entries)

    def add(self, name: str, value: Tensor | float | Iterable[float]) -> None:
        """Append a quantity. Tensors are flattened, complex ones as real and imaginary parts in turn; float32 is
        widened, so that what is written is exactly what was there."""
        tensor = torch.as_tensor(value).detach()
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        self.entries.append(Entry(name, tuple(tensor.cpu().double().flatten().tolist())))

    def text(self) -> str:
        """The file's content."""
        lines = [_FIRST_LINE]
        lines += [f"# {name}: {value}" for name, value in self.header.items()]
        lines += [f"{name} = {' '.join(map(repr, values))}".rstrip() for name, values in self.entries]
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file, all of it or nothing (``OSError`` if it cannot be written)."""
        write_text(path, self.text())


def read_trace(path: str | Path) -> Trace:
    """Read a trace of this package, or the lines ``name = value ...`` in the output of another program.

    In the latter, a word and a colon may stand before the name, what follows the numbers of a line (a unit) and lines
    of another form are passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not text, a line of a trace of this package is damaged, or no line has that form.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a text file of lines 'name = value ...', got binary data") from None
    own = lines[:1] == [_FIRST_LINE]
    trace = Trace()
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            name, colon, value = line[1:].partition(":")
            if own and colon:
                trace.header[name.strip()] = value.strip()
            continue
        entry = _entry(line, whole=own)
        if entry is not None:
            trace.entries.append(entry)
        elif own and line.strip():
            raise ValueError(f"{path}, line {number}: expected 'name = value ...' with numbers, got {line[:60]!r}")
    if not trace.entries:
        raise ValueError(f"{path}: expected lines 'name = value ...', found none")
    return trace


def _entry(line: str, whole: bool) -> Entry | None:
    """The line's numbers, up to the first word that is none; with ``whole`` there must not be such a word."""
    name, equals, numbers = line.partition("=")
    name = name.strip()
    label = _LABEL.match(name)
    name = name[label.end() :] if label else name
    if not equals or not name or name.startswith("#"):
        return None
    values = []
    for word in numbers.replace(",", " ").split():
        try:
            values.append(float(word))
        except ValueError:
            if whole:
                return None
            break
    return Entry(name, tuple(values)) if values else None
