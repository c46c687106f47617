"""Structure factors: one value for all reflections, a table by index, or one for each of several wavelengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sem.diffraction.files.kinds import CIF, MTZ, kind_of
from sem.diffraction.parameters import choice, nonnegative, parameter, positive
from sem.diffraction.readers import read_rows, read_words
from sem.ops.diffraction.inputs import StructureFactors

if TYPE_CHECKING:
    from sem.diffraction.files.reflection_list import ReflectionList

BETWEEN = ("linear", "nearest")
LARGEST_TABLE = 2**30
SMALL_TABLE, SPARSEST = 2**24, 4096
"""A table may have ``SMALL_TABLE`` entries, more only where one in ``SPARSEST`` is given: not 8 GiB for two lines."""


def read_reflection_rows(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Indices ``[n, 3]``, whole, and amplitudes ``[n]`` of rows ``h k l F``, both float64, as they stand in the file.

    Raises:
        ValueError: the file cannot be read, has no row, or has one that is not three whole numbers and an amplitude.
    """
    rows = read_rows(path, "h k l F", least=4)
    indices = np.rint(rows[:, :3])
    wrong = np.abs(indices - rows[:, :3]).max(axis=1) > 1e-6
    if wrong.any():
        shown = " ".join(f"{value:g}" for value in rows[int(wrong.argmax()), :4])
        raise ValueError(f"{path}: expected whole numbers h k l in each row, got {shown}")
    return indices, rows[:, 3]


def colours_listed(path: str | Path) -> list[tuple[float, Path, str | None]]:
    """Wavelength in Å, file and column of each row of the list that :meth:`Reflections.read_colours` reads.

    Raises:
        ValueError: the list cannot be read, has no row, or one that is not two or three words.
    """
    rows = []
    for line, words in read_words(path):
        try:
            wavelength = positive("wavelength", float(words[0]), "in Å") if len(words) in (2, 3) else None
        except ValueError:
            wavelength = None
        if wavelength is None:
            wanted = "a wavelength in Å, a file, and at most its column"
            raise ValueError(f"{path}, line {line}: expected {wanted}, got {' '.join(words)!r}")
        rows.append((wavelength, Path(path).parent / words[1], words[2] if len(words) > 2 else None))
    if not rows:
        raise ValueError(f"{path}: expected rows of a wavelength and a file, got none")
    return rows


class Reflections(nn.Module):
    """Amplitudes on a dense grid of indices, and ``default`` for every reflection outside of it.

    The entries of a reflection and of its Friedel mate are two: what is anomalous needs nothing more.

    Args:
        default: amplitude of what the table does not hold.
        table: float ``[H, K, L]``, ``[E, H, K, L]`` with ``wavelengths``, or None for a crystal whose reflections are
            all alike.
        first: h, k, l of ``table[..., 0, 0, 0]``.
        wavelengths: of the E tables, Å, in any order but no two alike.
        between: "linear" in the wavelength from table to table, or the "nearest" one; beyond the first and the last one
            it is that one.

    Parameters (float64, without gradients until asked for): ``default``, ``table``.

    Raises:
        ValueError: a negative default, a table that has not three dimensions (four with wavelengths) or has an infinite
            or NaN value, wavelengths that do not fit it.
    """

    def __init__(
        self,
        default: float = 0.0,
        table: Tensor | None = None,
        first: tuple[int, int, int] = (0, 0, 0),
        *,
        wavelengths: Sequence[float] | None = None,
        between: str = "linear",
    ) -> None:
        super().__init__()
        self.default = parameter(nonnegative("default_F", default))
        self.first = first
        self.between = choice("between wavelengths", between, BETWEEN)
        self.table: nn.Parameter | None = None
        self.wavelengths: Tensor | None
        self.register_buffer("wavelengths", None)
        if wavelengths is not None and table is None:
            raise ValueError("structure factors: expected a table for each of the wavelengths, got none")
        if table is not None:
            if wavelengths is not None:
                table, self.wavelengths = _sorted(table, wavelengths)
            elif table.dim() != 3 or 0 in table.shape:
                raise ValueError(f"structure factors: expected a table of three dimensions, got {list(table.shape)}")
            if not bool(table.isfinite().all()):
                raise ValueError("structure factors: expected finite values, got NaN or infinite ones")
            self.table = parameter(table)

    @property
    def last(self) -> tuple[int, int, int]:
        """h, k, l of the table's last entry; ``first`` without a table."""
        if self.table is None:
            return self.first
        h_size, k_size, l_size = self.table.shape[-3:]
        return self.first[0] + h_size - 1, self.first[1] + k_size - 1, self.first[2] + l_size - 1

    def forward(self, tricubic: bool = False, wavelength: Tensor | None = None) -> StructureFactors:
        """What the operator takes; of several tables what they give at ``wavelength`` in Å, with its gradient."""
        table: Tensor | None = self.table
        if table is not None and self.wavelengths is not None:
            assert wavelength is not None
            table = self._at(wavelength)
        return StructureFactors(self.default, table, self.first, tricubic and table is not None)

    def _at(self, wavelength: Tensor) -> Tensor:
        """``[H, K, L]``."""
        assert self.table is not None and self.wavelengths is not None
        known = self.wavelengths
        if self.between == "nearest" or len(known) == 1:
            return self.table[int((known - wavelength.detach()).abs().argmin())]
        inside = wavelength.clamp(float(known[0]), float(known[-1]))
        upper = int(torch.searchsorted(known, inside.detach()).clamp(1, len(known) - 1))
        share = (inside - known[upper - 1]) / (known[upper] - known[upper - 1])
        return self.table[upper - 1] * (1 - share) + self.table[upper] * share

    def colours(self, wavelengths: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Which of the sources, whose ``wavelengths`` ``[S]`` are in Å, have one table: of each such group the numbers
        of its sources and the wavelength of their table."""
        if self.wavelengths is None:
            return [(torch.arange(len(wavelengths), device=wavelengths.device), wavelengths[0])]
        at = wavelengths.detach()
        if self.between == "nearest" or len(self.wavelengths) == 1:
            marks = (self.wavelengths - at[:, None]).abs().argmin(dim=1)
        else:
            marks = torch.unique(at, return_inverse=True)[1]
        groups = [(marks == mark).nonzero()[:, 0] for mark in dict.fromkeys(marks.tolist())]
        return [(group, wavelengths[group[0]]) for group in groups]

    @classmethod
    def read(cls, path: str | Path, default: float = 0.0, column: str | None = None) -> Reflections:
        """The table of a file: rows ``h k l F``, gzipped if its name ends in ``.gz``, or MTZ or CIF, by its content.

        What is missing is ``default``; of a reflection given twice the last counts. MTZ and CIF are expanded by their
        symmetry, with Friedel mates; ``column`` is one of theirs, the one that is meant if None: see
        :meth:`sem.diffraction.files.reflection_list.ReflectionFile.choose`. Intensities become amplitudes.

        Raises:
            ImportError: the file is MTZ or CIF and gemmi is not installed.
            ValueError: the file cannot be read, has no row, has one that is not three whole numbers and an amplitude,
                its indices span too large a table, or it has no such column or several that may be meant.
        """
        if kind_of(path) in (MTZ, CIF):
            from sem.diffraction.files.reflection_list import open_reflections

            found = open_reflections(path).read(column)
            indices, amplitudes = found.indices.astype(np.float64), found.amplitudes
        elif column is not None:
            raise ValueError(f"{path}: expected MTZ or CIF to go with column {column!r}, got another file")
        else:
            indices, amplitudes = read_reflection_rows(path)
        lowest, highest = indices.min(axis=0), indices.max(axis=0)
        shape = tuple(int(size) for size in highest - lowest + 1)
        largest = min(LARGEST_TABLE, max(SMALL_TABLE, len(indices) * SPARSEST))
        if math.prod(shape) > largest:
            raise ValueError(f"{path}: expected indices that span at most {largest} reflections, got {shape}")
        table = np.full(shape, float(default))
        table[tuple((indices - lowest).astype(np.int64).T)] = amplitudes
        return cls(default, torch.from_numpy(table), (int(lowest[0]), int(lowest[1]), int(lowest[2])))

    @classmethod
    def read_colours(cls, path: str | Path, default: float = 0.0, between: str = "linear") -> Reflections:
        """The tables that a text file lists: in each row a wavelength in Å, a file as :meth:`read` takes it, found
        beside the list, and where one is meant its column. What one file lacks and another has is ``default`` there.

        Raises:
            ImportError: a file is MTZ or CIF and gemmi is not installed.
            ValueError: the list cannot be read or has no row, a row that is not that, a file as :meth:`read` says; the
                tables together are too large.
        """
        listed = colours_listed(path)
        tables = [cls.read(file, default, column) for _, file, column in listed]
        first = [min(table.first[axis] for table in tables) for axis in range(3)]
        last = [max(table.last[axis] for table in tables) for axis in range(3)]
        shape = [end - start + 1 for start, end in zip(first, last, strict=True)]
        if len(tables) * math.prod(shape) > LARGEST_TABLE:
            raise ValueError(f"{path}: expected at most {LARGEST_TABLE} entries, got {len(tables)} tables of {shape}")
        joined = torch.full((len(tables), *shape), float(default), dtype=torch.float64)
        for number, found in enumerate(tables):
            assert found.table is not None
            starts = [own - start for own, start in zip(found.first, first, strict=True)]
            box = tuple(slice(start, start + size) for start, size in zip(starts, found.table.shape, strict=True))
            joined[number][box] = found.table.detach()
        try:
            wavelengths = [wavelength for wavelength, _, _ in listed]
            return cls(default, joined, (first[0], first[1], first[2]), wavelengths=wavelengths, between=between)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def listed(self, cell: tuple[float, float, float, float, float, float], space_group: str = "P 1") -> ReflectionList:
        """The table as a list that :func:`sem.diffraction.files.reflection_list.write_mtz` writes.

        Entries that are equal to ``default`` are left out: they are what is missing.

        Raises:
            ValueError: there is no table, it holds the default alone, or there are several.
        """
        from sem.diffraction.files.reflection_list import ReflectionList

        if self.wavelengths is not None:
            raise ValueError("structure factors: expected one table, which a file holds, got one for each wavelength")
        table = None if self.table is None else self.table.detach().cpu().numpy()
        places = np.zeros((0, 3), np.int64) if table is None else np.argwhere(table != float(self.default))
        if table is None or not len(places):
            raise ValueError("structure factors: expected a table with other values than the default, got none")
        amplitudes = table[tuple(places.T)]
        return ReflectionList((places + self.first).astype(np.int32), amplitudes, cell, space_group)


def _sorted(table: Tensor, wavelengths: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Tables and wavelengths, float64, by increasing wavelength."""
    known = torch.tensor([positive("wavelength", value, "in Å") for value in wavelengths], dtype=torch.float64)
    if table.dim() != 4 or 0 in table.shape or len(table) != len(known):
        wanted = f"{len(known)} tables, one for each wavelength, [E, H, K, L]"
        raise ValueError(f"structure factors: expected {wanted}, got {list(table.shape)}")
    order = known.argsort()
    if bool((known[order][1:] == known[order][:-1]).any()):
        raise ValueError("structure factors: expected a table for each wavelength, got two for one")
    return table[order], known[order]
