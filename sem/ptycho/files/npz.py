"""Scans in PtychoPINN's ``.npz`` files: amplitudes, and positions in pixels of the object, without a geometry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sem.files import replacing
from sem.hdf5 import one_line
from sem.ptycho.files.checks import checked_geometry, object_of, placed, probe_of
from sem.ptycho.files.contents import GEOMETRY, Geometry, ScanFile
from sem.ptycho.files.patterns import amplitudes, blocks, frames, in_the_middle
from sem.ptycho.scan import Scan

DATA = ("diff3d", "diffraction")


def read(path: Path, *, margin: int, axes: str, scan_index: int | None) -> ScanFile:
    """The scan in a ``.npz`` file. Where its object lies below its positions the format does not say.

    Raises:
        ValueError: the file is damaged, lacks something, holds several scans of which none was chosen, or says what
            cannot be meant.
    """
    with _opened(path) as archive:
        name = next((name for name in DATA if name in archive), None)
        if name is None:
            raise ValueError(f"{path}: expected an array {' or '.join(DATA)}, found none of them")
        rows, columns = (_line(path, archive, key) for key in ("ycoords", "xcoords"))
        if len(rows) != len(columns):
            raise ValueError(f"{path}: xcoords: expected {len(rows)} numbers, as ycoords has, got {len(columns)}")
        centers = np.stack([rows, columns], 1)
        data = _patterns(path, name, _array(path, archive, name), len(centers))
        count, side = frames(path, name, data)
        chosen = _chosen(path, archive, count, scan_index)
        data, centers = (data, centers) if chosen is None else (data[chosen], centers[chosen])
        positions = placed(path, "ycoords and xcoords", centers, side, margin, axes)
        made = torch.empty(len(data), side, side)
        for part in blocks(data):
            made[part] = amplitudes(path, name, data[part], None, part.start, counts=False)
        scan = Scan(made, positions)
        probe = object = None
        if "probeGuess" in archive:
            probe = probe_of(path, "probeGuess", _array(path, archive, "probeGuess"), side)
        if "objectGuess" in archive:
            object = object_of(path, "objectGuess", _array(path, archive, "objectGuess"))
        geometry = _geometry(path, archive, side)
        return ScanFile(scan, probe, object, geometry, _note(path, archive))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        archive = np.load(path, allow_pickle=False)
    except Exception as error:  # of zipfile, zlib, tokenize and more
        raise ValueError(f"{path}: expected a complete .npz archive ({one_line(error)})") from None
    with archive:
        yield archive


def _array(path: Path, archive: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(archive[name])
    except Exception as error:  # as above
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            held = "expected numbers, got pickled Python objects, which are not loaded because they may run any code"
            raise ValueError(f"{path}: {name}: {held}") from None
        raise ValueError(f"{path}: {name}: damaged ({one_line(error)})") from None


def _line(path: Path, archive: Any, name: str) -> np.ndarray:
    if name not in archive:
        raise ValueError(f"{path}: expected an array {name}, found none")
    values = _array(path, archive, name)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ValueError(f"{path}: {name}: expected real [J], got {values.dtype} {list(values.shape)}")
    return values.astype(np.float64)


def _patterns(path: Path, name: str, values: np.ndarray, count: int) -> np.ndarray:
    """``[J, N, N]``, of ``[J, N, N]`` or ``[N, N, J]``; where both are possible it is the first."""
    if values.dtype.kind != "f":
        raise ValueError(f"{path}: {name}: expected amplitudes, real numbers, got {values.dtype}; are these counts?")
    if values.ndim == 3 and len(values) == count and values.shape[1] == values.shape[2]:
        return values
    if values.ndim == 3 and values.shape[2] == count and values.shape[0] == values.shape[1]:
        return np.moveaxis(values, 2, 0)
    expected = f"square patterns [{count}, N, N] or [N, N, {count}], one per position"
    raise ValueError(f"{path}: {name}: expected {expected}, got {list(values.shape)}")


def _chosen(path: Path, archive: Any, count: int, scan_index: int | None) -> np.ndarray | None:
    """Which patterns belong to the scan; None: all."""
    if "scan_index" not in archive:
        if scan_index is not None:
            raise ValueError(f"scan_index: {path} holds one scan and no such numbers, got {scan_index}")
        return None
    numbers = _array(path, archive, "scan_index")
    if numbers.shape != (count,) or numbers.dtype.kind not in "iuf":
        got = f"{numbers.dtype} {list(numbers.shape)}"
        raise ValueError(f"{path}: scan_index: expected a number per pattern, [{count}], got {got}")
    there = np.unique(numbers)
    if scan_index is None and len(there) == 1:
        return None
    if scan_index not in there:
        listed = ", ".join(f"{number:g}" for number in there[:8])
        raise ValueError(f"scan_index: {path} holds the scans {listed}: choose one of them, got {scan_index}")
    return numbers == scan_index


def _geometry(path: Path, archive: Any, side: int) -> Geometry | None:
    """Of arrays that :func:`write` adds to the format."""
    if not all(name in archive for name in GEOMETRY):
        return None
    arrays = [_array(path, archive, name) for name in GEOMETRY]
    for name, values in zip(GEOMETRY, arrays, strict=True):
        if values.size != 1 or values.dtype.kind not in "iuf":
            raise ValueError(f"{path}: {name}: expected one number, got {values.dtype} {list(values.shape)}")
    wavelength, distance, detector_pixel = (float(values.flat[0]) for values in arrays)
    return checked_geometry(path, wavelength, distance, detector_pixel, side)


def _note(path: Path, archive: Any) -> str:
    note = _array(path, archive, "provenance") if "provenance" in archive else np.array("")
    if note.dtype.kind != "U" or note.size != 1 or "\0" in note.item():
        raise ValueError(f"{path}: provenance: expected text without NUL, got {note.dtype} {list(note.shape)}")
    return str(note.item())


def write(path: Path, contents: ScanFile) -> None:
    """The scan as a ``.npz`` file, with what the format can hold.

    Raises:
        ValueError: there is something that the format cannot hold.
    """
    scan = contents.scan
    if scan.weight is not None or scan.background is not None:
        raise ValueError(f"{path}: a .npz file holds no weight and no background; leave them out, or write .h5")
    if contents.probe is None:
        raise ValueError(f"{path}: a .npz file needs a probe, got None")
    values = scan.amplitudes.detach().cpu()
    if values.dtype != torch.float32 or not bool((values.isfinite() & (values >= 0)).all()):
        raise ValueError(f"{path}: amplitudes: expected finite float32 numbers >= 0, got {values.dtype}")
    centers = scan.positions.detach().double().cpu().numpy() + scan.side // 2
    waves = contents.probe.detach().cpu().numpy()
    arrays = {
        "diff3d": in_the_middle(values.numpy()),
        "probeGuess": waves[0] if len(waves) == 1 else waves,
        "scan_index": np.zeros(len(scan), np.int64),
    }
    for axis, name in enumerate(("ycoords", "xcoords")):
        arrays[name] = arrays[f"{name}_start"] = centers[:, axis]
    if contents.object is not None:
        arrays["objectGuess"] = contents.object.detach().cpu().numpy()
    if contents.provenance:
        arrays["provenance"] = np.array(contents.provenance)
    if contents.geometry is not None:
        arrays |= {name: np.array(getattr(contents.geometry, name)) for name in GEOMETRY}
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
