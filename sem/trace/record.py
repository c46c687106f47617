"""A trace: named values in the order in which they were computed, as a text file of lines ``name = value ...``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sem.files import write_text

FIRST_LINE = "# sem trace"


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
        lines = [FIRST_LINE]
        lines += [f"# {name}: {value}" for name, value in self.header.items()]
        lines += [f"{name} = {' '.join(map(repr, values))}".rstrip() for name, values in self.entries]
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file, all of it or nothing (``OSError`` if it cannot be written)."""
        write_text(path, self.text())
