"""Reflections from MTZ and CIF: a column of amplitudes or intensities, in all of reciprocal space, and MTZ again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sem.diffraction.files.access import content_of, failing_as, library, size_of
from sem.diffraction.files.kinds import CIF, MTZ, kind_of
from sem.files import replacing

LARGEST_INDEX = 1 << 15
LARGEST_LIST = 1 << 27
"""Reflections that a list may have after symmetry and Friedel mates."""
_TAIL = 1 << 20  # bytes in which an MTZ file's header ends
EQUAL = 1e-5
"""Relative difference up to which equivalent reflections count as one."""

AMPLITUDE, INTENSITY = "amplitude", "intensity"
_MTZ_TYPES = {"F": (AMPLITUDE, 1), "J": (INTENSITY, 1), "G": (AMPLITUDE, 2), "K": (INTENSITY, 2)}
_CIF_COLUMNS = {
    "F_meas_au": AMPLITUDE,
    "F_meas": AMPLITUDE,
    "F_calc_au": AMPLITUDE,
    "F_calc": AMPLITUDE,
    "intensity_meas": INTENSITY,
    "F_squared_meas": INTENSITY,
    "intensity_calc": INTENSITY,
    "F_squared_calc": INTENSITY,
}
_CIF_PAIRS = {
    ("pdbx_F_plus", "pdbx_F_minus"): AMPLITUDE,
    ("pdbx_I_plus", "pdbx_I_minus"): INTENSITY,
}
_MEASURED = {
    "F", "FP", "FO", "FOBS", "F-OBS", "F_OBS", "F-OBS-FILTERED", "FMEAN", "F_MEAS_AU", "F_MEAS",
    "I", "IMEAN", "IOBS", "I-OBS", "I_OBS", "INTENSITY_MEAS", "F_SQUARED_MEAS",
}  # fmt: skip
"""Names, in capitals, of the columns that are meant where a file has several of a kind."""


@dataclass(frozen=True)
class Column:
    """A column that structure factors can be made of; the two of a Friedel pair count as one."""

    name: str
    kind: str
    labels: tuple[str, ...]
    """One label, or those of hkl and of its Friedel mate."""
    block: str = ""


@dataclass(frozen=True)
class ReflectionList:
    """Amplitudes of a crystal in P1: every reflection that symmetry and Friedel's law give is there, once.

    Args:
        indices: int32 ``[n, 3]``, h k l, sorted.
        amplitudes: float64 ``[n]``, not negative.
        cell: a, b, c in Å, alpha, beta, gamma in degrees.
        space_group: Hermann-Mauguin symbol of the file's space group.
        column: what the amplitudes were read from.
        wavelength: Å; 0 where the file has none.
    """

    indices: np.ndarray
    amplitudes: np.ndarray
    cell: tuple[float, float, float, float, float, float]
    space_group: str = "P 1"
    column: str = "F"
    wavelength: float = 0.0


@dataclass(frozen=True)
class ReflectionFile:
    """What a file of reflections holds, before a column is chosen."""

    path: Path
    kind: str
    columns: tuple[Column, ...]
    cell: tuple[float, float, float, float, float, float]
    space_group: str
    wavelength: float
    rows: int
    source: Any = field(repr=False)
    """gemmi's own object, or for CIF those of the blocks by name."""

    def resolution(self) -> tuple[float, float]:
        """The largest and the smallest spacing of its reflections, Å."""
        with failing_as(self.path, "reflections with a unit cell"):
            spacings = np.concatenate([np.asarray(part.make_d_array(), np.float64) for part in self._parts().values()])
        spacings = spacings[np.isfinite(spacings) & (spacings > 0)]
        return (float(spacings.max()), float(spacings.min())) if spacings.size else (0.0, 0.0)

    def choose(self, name: str | None) -> Column:
        """The column ``name``, or the one that is meant where there is no doubt.

        Amplitudes go before intensities, columns before Friedel pairs, names of measured data before others.

        Raises:
            ValueError: no such column, or several that may be meant; the message names the candidates.
        """
        if name is not None:
            found = [column for column in self.columns if name in (column.name, *column.labels)]
            if len(found) == 1:
                return found[0]
            wanted = f"a column of amplitudes or intensities {'that is one of' if not found else 'such as'}"
            raise ValueError(f"{self.path}: expected {wanted} {_names(found or self.columns)}, got {name!r}")
        if not self.columns:
            raise ValueError(f"{self.path}: expected a column of amplitudes or intensities, found none")
        for kind, size in ((AMPLITUDE, 1), (AMPLITUDE, 2), (INTENSITY, 1), (INTENSITY, 2)):
            alike = [column for column in self.columns if (column.kind, len(column.labels)) == (kind, size)]
            measured = [column for column in alike if column.labels[0].upper() in _MEASURED]
            for candidates in (measured, alike):
                if len(candidates) == 1:
                    return candidates[0]
            if alike:
                raise ValueError(f"{self.path}: expected the name of one column of {_names(measured or alike)}")
        raise AssertionError("a column has one of the kinds")

    def read(self, column: str | None = None, *, d_min: float = 0.0, d_max: float = np.inf) -> ReflectionList:
        """The amplitudes of a column, expanded to P1 with Friedel mates.

        What a row gives itself goes before what symmetry makes of another. Missing values are left out, intensities
        below 0 count 0, and of a Friedel pair the one that is missing is taken from the other.

        Raises:
            ValueError: as :meth:`choose`; indices that are not whole, amplitudes below 0, no reflection in the range.
        """
        with failing_as(self.path, "reflections"):
            return self._read(self.choose(column), d_min, d_max)

    def _read(self, chosen: Column, d_min: float, d_max: float) -> ReflectionList:
        source = self._parts()[chosen.block]
        indices, values = self._numbers(source, chosen.labels)
        squared = np.asarray(source.cell.calculate_1_d2_array(indices), np.float64)
        within = np.isfinite(squared) & (squared <= _squared_inverse(d_min)) & (squared >= _squared_inverse(d_max))
        if chosen.kind == INTENSITY:
            values = [np.sqrt(np.maximum(part, 0)) for part in values]
        present = np.any([np.isfinite(part) for part in values], axis=0) & within
        indices, values = indices[present], [part[present] for part in values]
        if not len(indices):
            raise ValueError(f"{self.path}: expected reflections with values in column {chosen.name}, found none")
        mates = [np.where(np.isfinite(one), one, other) for one, other in zip(values, reversed(values), strict=True)]
        if min(float(part.min()) for part in mates) < 0:
            raise ValueError(f"{self.path}: column {chosen.name}: expected amplitudes >= 0, got one below 0")
        expanded = self._expand(source.spacegroup, indices, mates[0], mates[-1])
        return ReflectionList(*expanded, self.cell, self.space_group, chosen.name, self.wavelength)

    def _parts(self) -> Mapping[str, Any]:
        return self.source if isinstance(self.source, dict) else {"": self.source}

    def _numbers(self, source: Any, labels: Iterable[str]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Indices int32 ``[n, 3]`` and the columns as float64."""
        if self.kind == MTZ:
            table = np.asarray(source.array, np.float64)
            order = [column.label for column in source.columns]
            indices = table[:, :3]
            values = [table[:, order.index(label)] for label in labels]
            if not np.isnan(source.valm):
                values = [np.where(part == source.valm, np.nan, part) for part in values]
        else:
            indices = np.asarray(source.make_miller_array(), np.float64).reshape(-1, 3)
            values = [np.asarray(source.make_float_array(label), np.float64) for label in labels]
        whole = np.isfinite(indices) & (np.rint(indices) == indices) & (np.abs(indices) <= LARGEST_INDEX)
        if not whole.all():
            row = indices[int(np.argmin(whole.all(axis=1)))].tolist()
            shown = " ".join(f"{value:g}" for value in row)
            raise ValueError(f"{self.path}: expected whole indices of at most {LARGEST_INDEX}, got {shown}")
        if any(bool(np.isinf(part).any()) for part in values):
            raise ValueError(f"{self.path}: column {' and '.join(labels)}: expected finite values, got infinite ones")
        return indices.astype(np.int32), values

    def _expand(
        self, space_group: Any, indices: np.ndarray, plus: np.ndarray, minus: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        group = space_group.operations()
        # h R for the rotations of the group: translations change phases alone
        rotations = np.unique([operation.rot for operation in group.sym_ops], axis=0) // group.sym_ops[0].DEN
        identity = np.array([np.array_equal(rotation, np.eye(3)) for rotation in rotations])
        ordered = np.concatenate([rotations[~identity], rotations[identity]])  # what the file gives itself comes last
        number = 2 * len(ordered) * len(indices)
        if number > LARGEST_LIST:
            raise ValueError(f"{self.path}: expected at most {LARGEST_LIST} reflections with symmetry, got {number}")
        every, amplitudes = [], []
        for rotation in ordered:
            turned = indices @ rotation.astype(np.int32)
            every += [-turned, turned]
            amplitudes += [minus, plus]
        if int(max(np.abs(part).max() for part in every)) > 4 * LARGEST_INDEX:
            raise ValueError(f"{self.path}: expected indices that symmetry keeps small, got larger ones")
        return unique_reflections(np.concatenate(every), np.concatenate(amplitudes))


def open_reflections(path: str | Path) -> ReflectionFile:
    """What an MTZ or CIF file holds, its sizes checked.

    Raises:
        ImportError: gemmi is not installed.
        ValueError: the file is damaged, is neither, has no indices, no cell or no space group, or is not merged.
    """
    kind = kind_of(path)
    if kind in (MTZ, CIF):
        with failing_as(path, f"reflections as {kind} that are complete"):
            return (_open_mtz if kind == MTZ else _open_cif)(Path(path))
    raise ValueError(f"{path}: expected reflections as MTZ or CIF, got a file of another kind ({kind})")


def unique_reflections(indices: np.ndarray, amplitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices ``[n, 3]`` without repetition, sorted, with their amplitudes; of several the last counts."""
    wide = indices[::-1].astype(np.int64) + (1 << 20)
    key = (wide[:, 0] << 42) | (wide[:, 1] << 21) | wide[:, 2]
    _, first = np.unique(key, return_index=True)
    return indices[::-1][first], amplitudes[::-1][first]


def write_mtz(path: str | Path, reflections: ReflectionList) -> None:
    """Write amplitudes as MTZ, float32, with indices in the asymmetric unit of the list's space group.

    In P1 Friedel mates that differ become two columns F(+) and F(-); a mate that the list lacks counts as equal.

    Raises:
        ImportError: gemmi is not installed.
        OSError: the file could not be written.
        ValueError: an unknown space group or one that the amplitudes do not have, a cell that is none.
    """
    gemmi = library("gemmi", "an MTZ file")
    group = gemmi.find_spacegroup_by_name(reflections.space_group)
    if group is None:
        raise ValueError(f"{path}: expected a space group by its symbol, got {reflections.space_group!r}")
    mtz = gemmi.Mtz(with_base=True)
    mtz.title = "structure factors of sem.diffraction"
    mtz.spacegroup = group
    mtz.set_cell_for_all(gemmi.UnitCell(*reflections.cell))
    mtz.add_dataset("sem").wavelength = reflections.wavelength
    indices, mates = _in_asymmetric_unit(path, gemmi, group, reflections)
    pair = group.number == 1 and _differ(mates[:, 0], mates[:, 1])
    for label, kind in (("F(+)", "G"), ("F(-)", "G")) if pair else (("F", "F"),):
        mtz.add_column(label, kind)
    values = mates if pair else np.where(np.isfinite(mates[:, :1]), mates[:, :1], mates[:, 1:])
    mtz.set_data(np.concatenate([indices, values], axis=1).astype(np.float32))
    mtz.update_reso()
    with replacing(path) as file:
        file.write(mtz.write_to_bytes())


def _in_asymmetric_unit(
    path: str | Path, gemmi: Any, group: Any, reflections: ReflectionList
) -> tuple[np.ndarray, np.ndarray]:
    """Indices ``[n, 3]`` of the asymmetric unit, and amplitudes ``[n, 2]`` of each and of its mate, NaN for none."""
    carrier = gemmi.Mtz(with_base=True)
    carrier.spacegroup = group
    carrier.set_cell_for_all(gemmi.UnitCell(*reflections.cell))
    carrier.add_column("ROW", "R")
    rows = np.arange(len(reflections.indices))
    # a float32 counts rows to 2^24: two columns carry them
    carrier.add_column("HIGH", "R")
    parts = np.stack([rows & 0xFFFF, rows >> 16], axis=1)
    carrier.set_data(np.concatenate([reflections.indices, parts], axis=1).astype(np.float32))
    carrier.ensure_asu()
    moved = np.asarray(carrier.array, np.float64)
    order = moved[:, 3].astype(np.int64) + (moved[:, 4].astype(np.int64) << 16)
    indices = moved[:, :3].astype(np.int32)
    amplitudes = reflections.amplitudes[order]
    if group.number == 1:  # a reflection is its own representative or the mate of one
        own = (reflections.indices[order] == indices).all(axis=1)
        unique, place = np.unique(indices, axis=0, return_inverse=True)
        mates = np.full((len(unique), 2), np.nan)
        mates[place.reshape(-1)[own], 0] = amplitudes[own]
        mates[place.reshape(-1)[~own], 1] = amplitudes[~own]
        return unique, mates
    unique, place = np.unique(indices, axis=0, return_inverse=True)
    lowest, highest = np.full(len(unique), np.inf), np.zeros(len(unique))
    np.minimum.at(lowest, place.reshape(-1), amplitudes)
    np.maximum.at(highest, place.reshape(-1), amplitudes)
    if _differ(lowest, highest):
        worst = unique[int(np.argmax(highest - lowest))].tolist()
        raise ValueError(
            f"{path}: expected equal amplitudes of equivalents in {group.hm}, got others at {' '.join(map(str, worst))}"
        )
    return unique, np.stack([highest, highest], axis=1)


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    both = np.isfinite(one) & np.isfinite(other)
    return bool((np.abs(one - other)[both] > EQUAL * np.maximum(one, other)[both]).any())


def _open_mtz(path: Path) -> ReflectionFile:
    gemmi = library("gemmi", "an MTZ file")
    size = size_of(path)
    with failing_as(path, "an MTZ file with a header"):
        header = gemmi.read_mtz_file(str(path), with_data=False)
    columns, rows = len(header.columns), header.nreflections
    needed = 80 + 4 * columns * rows
    if columns < 3 or [column.type for column in header.columns[:3]] != ["H", "H", "H"]:
        shown = " ".join(column.label for column in header.columns[:3]) or "none"
        raise ValueError(f"{path}: expected an MTZ file whose first columns are the indices H K L, got {shown}")
    if rows < 1 or needed > size:
        wanted = f"{rows} reflections of {columns} columns, {needed} bytes"
        raise ValueError(f"{path}: expected {wanted} as its header says, got {size} bytes")
    with open(path, "rb") as file:
        file.seek(max(size - _TAIL, 0))
        if b"MTZENDOFHEADERS" not in file.read():
            raise ValueError(f"{path}: expected an MTZ file that is complete, got one whose header does not end")
    if len(header.batches) or any(column.type == "Y" for column in header.columns):
        raise ValueError(f"{path}: expected merged reflections, got unmerged ones")
    mtz = gemmi.read_mtz_file(str(path))
    wavelength = max((float(part.wavelength) for part in mtz.datasets), default=0.0)
    found = tuple(_mtz_columns(mtz))
    name = _require_group(path, mtz.spacegroup, mtz.spacegroup_name)
    return ReflectionFile(path, MTZ, found, _cell(path, mtz.cell), name, wavelength, rows, mtz)


def _mtz_columns(mtz: Any) -> Iterable[Column]:
    """Every column of amplitudes or intensities; those of Friedel pairs by twos, as they stand in the file."""
    waiting = None
    for column in mtz.columns:
        if column.type not in _MTZ_TYPES:
            continue
        kind, size = _MTZ_TYPES[column.type]
        if size == 1:
            yield Column(column.label, kind, (column.label,))
        elif waiting is not None and waiting.type == column.type:
            yield Column(f"{waiting.label},{column.label}", kind, (waiting.label, column.label))
            waiting = None
        else:
            waiting = column


def _open_cif(path: Path) -> ReflectionFile:
    gemmi = library("gemmi", "a CIF file")
    document = gemmi.cif.read_string(content_of(path))
    blocks = [block for block in gemmi.as_refln_blocks(document) if block.default_loop is not None]
    if not blocks:
        small = [block for block in document if block.find_loop("_refln_index_h")]
        blocks = [gemmi.hkl_cif_as_refln_block(block) for block in small]
    blocks = [block for block in blocks if block.is_merged()]
    if not blocks:
        raise ValueError(f"{path}: expected a CIF file with merged reflections (_refln), found none")
    columns: list[Column] = []
    several = len(blocks) > 1
    for block in blocks:
        name = block.block.name
        labels = set(block.column_labels())
        if not {"index_h", "index_k", "index_l"} <= labels:
            raise ValueError(f"{path}: expected indices index_h, index_k and index_l in block {name}, found none")
        front = f"{name}:" if several else ""
        columns += [
            Column(f"{front}{label}", kind, (label,), name if several else "")
            for label, kind in _CIF_COLUMNS.items()
            if label in labels
        ]
        columns += [
            Column(f"{front}{','.join(pair)}", kind, pair, name if several else "")
            for pair, kind in _CIF_PAIRS.items()
            if set(pair) <= labels
        ]
    first = blocks[0]
    for block in blocks:
        _require_group(path, block.spacegroup, "")
    rows = sum(len(block.make_miller_array()) for block in blocks)
    source = {block.block.name if several else "": block for block in blocks}
    wavelength = float(first.wavelength) if np.isfinite(first.wavelength) and first.wavelength > 0 else 0.0
    group = first.spacegroup.hm
    return ReflectionFile(path, CIF, tuple(columns), _cell(path, first.cell), group, wavelength, rows, source)


def _require_group(path: Path, group: Any, said: str) -> str:
    if group is None:
        raise ValueError(f"{path}: expected a space group that is known, got {said or 'none'!r}")
    return str(group.hm)


def _cell(path: Path, cell: Any) -> tuple[float, float, float, float, float, float]:
    numbers = (cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma)
    if not cell.is_crystal() or not all(np.isfinite(numbers)):
        raise ValueError(f"{path}: expected a unit cell, got {' '.join(f'{number:g}' for number in numbers)}")
    return numbers


def _names(columns: Iterable[Column]) -> str:
    return ", ".join(column.name for column in columns) or "none"


def _squared_inverse(spacing: float) -> float:
    return np.inf if spacing == 0 else 1.0 / spacing**2
