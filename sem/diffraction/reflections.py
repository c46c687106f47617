"""Structure factors: one value for all reflections, or a table by index."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sem.diffraction.files.kinds import CIF, MTZ, kind_of
from sem.diffraction.parameters import nonnegative, parameter
from sem.diffraction.readers import read_rows
from sem.ops.diffraction.inputs import StructureFactors

if TYPE_CHECKING:
    from sem.diffraction.files.reflection_list import ReflectionList

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


class Reflections(nn.Module):
    """Amplitudes on a dense grid of indices, and ``default`` for every reflection outside of it.

    Args:
        default: amplitude of what the table does not hold.
        table: float ``[H, K, L]``, or None for a crystal whose reflections are all alike.
        first: h, k, l of ``table[0, 0, 0]``.

    Parameters (float64, without gradients until asked for): ``default``, ``table``.

    Raises:
        ValueError: a negative default, a table that has not three dimensions or has an infinite or NaN value.
    """

    def __init__(
        self, default: float = 0.0, table: Tensor | None = None, first: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        super().__init__()
        self.default = parameter(nonnegative("default_F", default))
        self.first = first
        self.table: nn.Parameter | None = None
        if table is not None:
            if table.dim() != 3 or 0 in table.shape:
                raise ValueError(f"structure factors: expected a table of three dimensions, got {list(table.shape)}")
            if not bool(table.isfinite().all()):
                raise ValueError("structure factors: expected finite values, got NaN or infinite ones")
            self.table = parameter(table)

    @property
    def last(self) -> tuple[int, int, int]:
        """h, k, l of the table's last entry; ``first`` without a table."""
        if self.table is None:
            return self.first
        h_size, k_size, l_size = self.table.shape
        return self.first[0] + h_size - 1, self.first[1] + k_size - 1, self.first[2] + l_size - 1

    def forward(self, tricubic: bool = False) -> StructureFactors:
        """What the operator takes."""
        return StructureFactors(self.default, self.table, self.first, tricubic and self.table is not None)

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

    def listed(self, cell: tuple[float, float, float, float, float, float], space_group: str = "P 1") -> ReflectionList:
        """The table as a list that :func:`sem.diffraction.files.reflection_list.write_mtz` writes.

        Entries that are equal to ``default`` are left out: they are what is missing.

        Raises:
            ValueError: there is no table, or it holds the default alone.
        """
        from sem.diffraction.files.reflection_list import ReflectionList

        table = None if self.table is None else self.table.detach().cpu().numpy()
        places = np.zeros((0, 3), np.int64) if table is None else np.argwhere(table != float(self.default))
        if table is None or not len(places):
            raise ValueError("structure factors: expected a table with other values than the default, got none")
        amplitudes = table[tuple(places.T)]
        return ReflectionList((places + self.first).astype(np.int32), amplitudes, cell, space_group)
