"""What a file of the field holds, in words, and from one format to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from sem.diffraction import images
from sem.diffraction.cell import require_cell
from sem.diffraction.files.dxtbx import DxtbxExperiment
from sem.diffraction.files.dxtbx_document import read_experiments
from sem.diffraction.files.field_image import FieldImage
from sem.diffraction.files.kinds import CBF, CIF, EXPERIMENTS, HDF5, MTZ, UNKNOWN, kind_of
from sem.diffraction.files.reflection_list import (
    LARGEST_INDEX,
    ReflectionList,
    open_reflections,
    unique_reflections,
    write_mtz,
)
from sem.diffraction.reflections import read_reflection_rows
from sem.files import write_text

Row = tuple[str, str]
_MOST_SHOWN = 8
TEXT_SUFFIXES = (".hkl", ".txt")


def inspect(path: str | Path) -> Iterator[Row]:
    """Rows of name and value: the format, then what it holds.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.hkl"
        >>> _ = path.write_text("1 0 0 3.5\\n0 2 -1 4\\n")
        >>> for row in inspect(path):
        ...     print(*row, sep=": ")
        format: rows h k l F
        reflections: 2
        indices: h 0 to 1, k 0 to 2, l -1 to 0
        amplitudes: 3.5 to 4

    Raises:
        ImportError: the format needs a library that is not installed.
        ValueError: the file is damaged or of no known format.
    """
    kind = kind_of(path)
    if kind in (MTZ, CIF):
        return _reflections(path, kind)
    if kind == EXPERIMENTS:
        return _experiments(path)
    if kind == UNKNOWN and _is_text(path):
        return _rows_of_text(path)
    return _image(path, kind)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    column: str | None = None,
    cell: Sequence[float] | None = None,
    space_group: str | None = None,
    panel: int | None = None,
    frame: int = 0,
) -> str:
    """Write reflections as MTZ or as rows ``h k l F``, or an image in another format; what was done, in words.

    Args:
        column: of MTZ or CIF, as :meth:`sem.diffraction.Reflections.read` takes it.
        cell: of rows ``h k l F``, which have none; MTZ needs one.
        space_group: of the MTZ file, for no other target; P 1 if None.
        panel: of an image with several, for a format that holds one.
        frame: exposure of an HDF5 file.

    Raises:
        ImportError: a format needs a library that is not installed.
        OSError: the target could not be written.
        ValueError: the source is damaged, or the target cannot hold it.
    """
    kind, suffix = kind_of(source), Path(target).suffix.lower()
    if kind == EXPERIMENTS:
        raise ValueError(f"{source}: expected reflections or an image, got {kind}")
    if space_group is not None and suffix != ".mtz":
        raise ValueError(f"{target}: expected no space group, which MTZ alone is given, got {space_group!r}")
    of_reflections = suffix in (".mtz", *TEXT_SUFFIXES)
    if kind in (MTZ, CIF) or (kind == UNKNOWN and (of_reflections or _is_text(source))):
        return _convert_reflections(source, target, kind, column, cell, space_group)
    if suffix not in (*images.SUFFIXES, ".img", ".bin"):
        expected = ", ".join([*images.SUFFIXES, ".img", ".bin"])
        raise ValueError(f"{target}: expected a name that ends in {expected} for an image")
    found = images.read_panels(source, frame)
    if panel is not None or suffix not in (".h5", ".hdf5", ".nxs"):
        number = found.panel(panel, source)
        found = FieldImage((found.panels[number],), found.good[number : number + 1], found.settings)
    panels = [torch.from_numpy(_torch_dtype(array)) for array in found.panels]
    if suffix in images.SUFFIXES:
        images.check_output(target, whole=not panels[0].is_floating_point())
        images.write_field(target, panels, found.settings, [torch.from_numpy(good.copy()) for good in found.good])
    elif suffix == ".img":
        whole = torch.from_numpy(_with_bad(found, 0))
        if not bool((whole == whole.round()).all()):
            raise ValueError(f"{target}: expected whole counts, which SMV holds, got others")
        images.write_smv(target, whole.to(torch.int64))
    else:
        images.write_float(target, torch.from_numpy(_with_bad(found, images.BAD)))
    shown = " x ".join(map(str, panels[0].shape))
    return f"{len(panels)} panel{'s' if len(panels) > 1 else ''} of {shown}{_said_of_bad(found, suffix)}"


def _with_bad(found: FieldImage, value: int) -> np.ndarray:
    """The one panel of an image with its bad pixels as ``value``."""
    array = found.panels[0].astype(np.float64)
    return np.where(found.good[0], array, value) if found.good else array


def _said_of_bad(found: FieldImage, suffix: str) -> str:
    """How many bad pixels there are, and what they were written as where the format does not mark them."""
    number = sum(good.size - int(np.count_nonzero(good)) for good in found.good)
    if not number:
        return ""
    if images.SUFFIXES.get(suffix) in (CBF, HDF5):
        return f", bad pixels: {number}"
    return f", bad pixels: {number}, which {suffix} does not mark, written {'as 0' if suffix == '.img' else 'below 0'}"


def _convert_reflections(
    source: str | Path,
    target: str | Path,
    kind: str,
    column: str | None,
    cell: Sequence[float] | None,
    space_group: str | None,
) -> str:
    suffix = Path(target).suffix.lower()
    if suffix not in (".mtz", *TEXT_SUFFIXES):
        raise ValueError(f"{target}: expected a name that ends in .mtz, {', '.join(TEXT_SUFFIXES)} for reflections")
    if kind in (MTZ, CIF):
        if cell is not None:
            raise ValueError(f"{source}: expected no cell, which the file has itself")
        found = open_reflections(source).read(column)
        listed = ReflectionList(
            found.indices, found.amplitudes, found.cell, space_group or "P 1", found.column, found.wavelength
        )
    else:
        if cell is None and suffix == ".mtz":
            raise ValueError(f"{target}: expected a cell, which {source} does not have")
        a, b, c, alpha, beta, gamma = cell or (1, 1, 1, 90, 90, 90)
        require_cell((a, b, c, alpha, beta, gamma))
        if column is not None:
            raise ValueError(f"{source}: expected MTZ or CIF to go with column {column!r}, got another file")
        rows = _listed_rows(source)
        listed = ReflectionList(*rows, (a, b, c, alpha, beta, gamma), space_group or "P 1")
    if suffix == ".mtz":
        write_mtz(target, listed)
    else:
        pairs = zip(listed.indices.tolist(), listed.amplitudes.tolist(), strict=True)
        write_text(target, "".join(f"{h} {k} {m} {value!r}\n" for (h, k, m), value in pairs))
    return f"{len(listed.indices)} reflections in P1, from column {listed.column}"


def _reflections(path: str | Path, kind: str) -> Iterator[Row]:
    found = open_reflections(path)
    longest, shortest = found.resolution()
    yield "format", kind
    yield "space group", found.space_group
    yield "cell, Å and degrees", _numbers(found.cell)
    yield "wavelength, Å", f"{found.wavelength:g}" if found.wavelength else "not in the file"
    yield "rows", str(found.rows)
    yield "resolution, Å", f"{longest:.4g} to {shortest:.4g}"
    for column in found.columns:
        yield "column", f"{column.name}, {column.kind}{' of Friedel pairs' if len(column.labels) > 1 else ''}"
    try:
        chosen = found.choose(None)
    except ValueError as error:
        yield "taken", str(error).removeprefix(f"{path}: ")
        return
    listed = found.read(chosen.name)
    yield "taken", f"{chosen.name}: {len(listed.indices)} reflections in P1"
    yield from _of_list(listed.indices, listed.amplitudes)


def _rows_of_text(path: str | Path) -> Iterator[Row]:
    indices, amplitudes = _listed_rows(path)
    yield "format", "rows h k l F"
    yield "reflections", str(len(indices))
    yield from _of_list(indices, amplitudes)


def _listed_rows(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Indices int32 ``[n, 3]``, sorted, and amplitudes of rows ``h k l F``, 0 too; of several the last counts."""
    indices, amplitudes = read_reflection_rows(path)
    if np.abs(indices).max() > LARGEST_INDEX:
        shown = " ".join(f"{value:g}" for value in indices[int(np.abs(indices).max(axis=1).argmax())])
        raise ValueError(f"{path}: expected whole indices of at most {LARGEST_INDEX}, got {shown}")
    return unique_reflections(indices.astype(np.int32), amplitudes)


def _of_list(indices: np.ndarray, amplitudes: np.ndarray) -> Iterator[Row]:
    limits = zip("hkl", indices.min(axis=0), indices.max(axis=0), strict=True)
    yield "indices", ", ".join(f"{name} {low} to {high}" for name, low, high in limits)
    yield "amplitudes", f"{amplitudes.min():.6g} to {amplitudes.max():.6g}"


def _experiments(path: str | Path) -> Iterator[Row]:
    listed = read_experiments(path)
    yield "format", EXPERIMENTS
    yield "experiments", str(len(listed))
    for number, experiment in enumerate(listed[:_MOST_SHOWN]):
        for name, value in _experiment(experiment):
            yield f"{number}: {name}" if len(listed) > 1 else name, value
    if len(listed) > _MOST_SHOWN:
        yield "...", f"{len(listed) - _MOST_SHOWN} more"


def _experiment(experiment: DxtbxExperiment) -> Iterator[Row]:
    beam, panels, scan = experiment.beam_numbers, experiment.panels, experiment.scan
    yield "wavelength, Å", f"{beam.wavelength:.7g}"
    yield "direction to the source", _numbers(beam.direction)
    yield "polarisation", f"Kahn's factor {2 * beam.fraction - 1:g}"
    yield "panels", str(len(panels))
    for panel in panels[:_MOST_SHOWN]:
        distance = abs(float(np.cross(panel.fast, panel.slow) @ panel.origin))
        fast, slow = panel.pixels
        yield panel.name or "panel", f"{fast} x {slow} of {panel.pixel_size:g} mm, plane at {distance:.6g} mm"
    if len(panels) > _MOST_SHOWN:
        yield "...", f"{len(panels) - _MOST_SHOWN} more"
    if experiment.models["goniometer"] is not None:
        yield "spindle", _numbers(experiment.goniometer.setting @ experiment.goniometer.axis)
    if scan is not None:
        yield "scan", f"images {scan.first} to {scan.last} from {scan.start:g} by {scan.width:g} degrees"
    if experiment.models["crystal"] is None:
        yield "crystal", "none"
    else:
        vectors = np.linalg.inv(experiment.reciprocal().T)
        lengths = np.linalg.norm(vectors, axis=1)
        units = vectors / lengths[:, None]
        angles = np.degrees(np.arccos(np.clip([units[1] @ units[2], units[2] @ units[0], units[0] @ units[1]], -1, 1)))
        yield "cell, Å and degrees", _numbers([*lengths, *angles])
        yield "space group (Hall)", experiment.space_group
    for note in experiment.notes():
        yield "note", note


def _image(path: str | Path, kind: str) -> Iterator[Row]:
    found = images.read_panels(path)
    yield "format", "raw floats" if kind == UNKNOWN else kind
    yield "exposures", str(found.frames)
    yield "panels", str(len(found.panels))
    for number, panel in enumerate(found.panels[:_MOST_SHOWN]):
        slow, fast = panel.shape
        good = panel[found.good[number]] if found.good else panel
        counts = f"{good.min():.6g} to {good.max():.6g}" if good.size else "none good"
        masked = f", {panel.size - good.size} not good" if found.good else ""
        yield f"panel {number}", f"{fast} x {slow} {panel.dtype}, {counts}{masked}"
    if len(found.panels) > _MOST_SHOWN:
        yield "...", f"{len(found.panels) - _MOST_SHOWN} more"
    units = {"pixel": "mm", "distance": "mm", "wavelength": "Å", "spot": "mm", "phi": "°", "oscillation": "°"}
    for name, value in found.settings.items():
        yield f"{name}, {units[name]}", _numbers(value if isinstance(value, tuple) else (value,))


def _is_text(path: str | Path) -> bool:
    """What reads as a row of numbers is a list of reflections, all else an image without a header."""
    with open(path, "rb") as file:
        begin = file.read(4096)
    return Path(path).suffix == ".gz" or (bool(begin) and begin.isascii() and b"\0" not in begin)


def _torch_dtype(array: np.ndarray) -> np.ndarray:
    """A writable copy whose dtype torch knows."""
    return images.signed(array.astype(array.dtype.newbyteorder("=")))


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{float(value) + 0.0:.6g}" for value in values)
