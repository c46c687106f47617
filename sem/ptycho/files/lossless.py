"""The package's own ``.h5``: all that a :class:`ScanFile` holds, bit for bit, with checksums."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem.hdf5 import Source, array_of, name_of, put, reading, writing
from sem.ptycho.files.contents import GEOMETRY, Geometry, ScanFile
from sem.ptycho.files.patterns import blocks, frames, whole_counts
from sem.ptycho.scan import Scan

FORMAT = "sem ptychographic scan"
VERSION = 1
UNITS = ("Angstrom", "m", "m")


def read(path: Path) -> ScanFile:
    """The scan in a ``.h5`` file of this package.

    Raises:
        ValueError: the file is damaged, of a newer version, or lacks something.
    """
    with reading(path) as source:
        version = source.attribute(source.root, "version")
        if str(version) != str(VERSION):
            raise ValueError(f"{path}: expected version {VERSION} of '{FORMAT}', got {version}")
        data = _amplitudes(source)
        positions = source.tensor(source.needed("positions"))
        waves = {name: source.dataset(name) for name in ("weight", "background", "probe", "object")}
        found = {name: None if dataset is None else source.tensor(dataset) for name, dataset in waves.items()}
        try:
            scan = Scan(data, positions, found["weight"], found["background"])
            geometry = geometry_of(source, scan.side)
            return ScanFile(scan, found["probe"], found["object"], geometry, source.text("provenance"))
        except (TypeError, ValueError) as error:
            said = str(error)
            raise ValueError(said if said.startswith(str(path)) else f"{path}: {said}") from None


def _amplitudes(source: Source) -> Tensor:
    data = source.needed("amplitudes", "counts")
    count, side = frames(source.path, name_of(data), data)
    if name_of(data) == "amplitudes":
        return source.tensor(data)
    if data.dtype.kind != "u" or len(data.shape) != 3:
        got = f"{data.dtype} {list(data.shape)}"
        raise ValueError(f"{source.path}: counts: expected unsigned whole numbers [J, N, N], got {got}")
    made = torch.empty(count, side, side)
    for part in blocks(data):
        made[part] = torch.from_numpy(np.sqrt(source.array(data, part).astype(np.float64)).astype(np.float32))
    return made


def geometry_of(source: Source, side: int) -> Geometry | None:
    """The geometry that :func:`put_geometry` wrote; None where it wrote none."""
    numbers = [source.number(f"geometry/{name}") for name in GEOMETRY]
    if all(number is None for number in numbers):
        return None
    wavelength, distance, detector_pixel = (math.nan if number is None else number for number in numbers)
    return Geometry(wavelength, distance, detector_pixel, side)


def put_geometry(file: Any, geometry: Geometry | None) -> None:
    """Write a geometry, if there is one, into an ``h5py.File``."""
    if geometry is not None:
        for name, unit in zip(GEOMETRY, UNITS, strict=True):
            file[f"geometry/{name}"] = float(getattr(geometry, name))
            file[f"geometry/{name}"].attrs["units"] = unit


def write(path: Path, contents: ScanFile) -> None:
    """All of ``contents`` as a ``.h5`` file of this package. Amplitudes that are the square roots of whole counts are
    stored as those, which are smaller.

    Raises:
        ValueError: a tensor of a dtype that files cannot hold.
    """
    scan = contents.scan
    arrays = {
        "positions": scan.positions,
        "weight": scan.weight,
        "background": scan.background,
        "probe": contents.probe,
        "object": contents.object,
    }
    ready = {name: array_of(path, name, tensor) for name, tensor in arrays.items() if tensor is not None}
    amplitudes = array_of(path, "amplitudes", scan.amplitudes)
    counts = whole_counts(amplitudes)
    patterns = {"amplitudes": amplitudes} if counts is None else {"counts": counts}
    with writing(path) as file:
        file.attrs.update({"format": FORMAT, "version": VERSION})
        for name, values in {**patterns, **ready}.items():
            put(file, name, values)
        put_geometry(file, contents.geometry)
        file["provenance"] = contents.provenance
