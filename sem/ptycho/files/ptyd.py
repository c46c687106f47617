"""Scans in PtyPy's ``.ptyd`` files: frames in numbered chunks, which may lie in files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from sem.hdf5 import Source, name_of, reading
from sem.ptycho.files.checks import PHOTON_ENERGIES, checked_geometry, placed, square_pixel, within
from sem.ptycho.files.contents import Geometry, ScanFile, photon_wavelength
from sem.ptycho.files.patterns import frames, read_counts, weight_of
from sem.ptycho.scan import Scan


def read(path: Path, *, margin: int, axes: str) -> ScanFile:
    """The scan in a ``.ptyd`` file; its chunks are joined in order of their numbers. Positions are the beam's.

    Raises:
        ValueError: the file is damaged, lacks something, or says what cannot be meant.
    """
    with reading(path) as source:
        chunks = [f"chunks/{number}" for number in _numbers(source)]
        data = [source.needed(f"{chunk}/data") for chunk in chunks]
        sizes = [frames(path, name_of(dataset), dataset) for dataset in data]
        side = sizes[0][1]
        for dataset, (_, other) in zip(data, sizes, strict=True):
            if other != side:
                expected = f"patterns of {side} x {side}, as in {name_of(data[0])}"
                raise ValueError(f"{path}: {name_of(dataset)}: expected {expected}, got {other} x {other}")
        count = sum(size for size, _ in sizes)
        told = source.number("meta/num_frames")
        if told is not None and told != count:
            raise ValueError(f"{path}: chunks: expected {told:g} patterns, as meta/num_frames says, got {count}")
        geometry = _geometry(source, side)
        metres = np.concatenate([_positions(source, c, size) for c, (size, _) in zip(chunks, sizes, strict=True)])
        positions = placed(path, "chunks/*/positions", metres / geometry.object_pixel, side, margin, axes)
        weight = _weight(source, chunks, [size for size, _ in sizes], side)
        scan = Scan(
            read_counts(source, data, None if weight is None else weight[1]),
            positions,
            None if weight is None else weight[0],
        )
        return ScanFile(scan, None, None, geometry, source.text("meta/label"))


def _numbers(source: Source) -> list[int]:
    names = source.children("chunks")
    numbers = sorted(int(name) for name in names if name.isdecimal())
    if len(numbers) != len(names) or numbers != list(range(len(numbers))) or not numbers:
        got = ", ".join(sorted(names)[:8]) or "none"
        raise ValueError(f"{source.path}: chunks: expected groups 0, 1, 2 and so on without a gap, got {got}")
    return numbers


def _positions(source: Source, chunk: str, count: int) -> np.ndarray:
    """``[J, 2]`` (y, x) in metres."""
    dataset = source.needed(f"{chunk}/positions")
    values = source.array(dataset)
    if values.shape != (count, 2) or values.dtype.kind not in "iuf":
        expected = f"real [{count}, 2], a y and an x per pattern"
        got = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"{source.path}: {name_of(dataset)}: expected {expected}, got {got}")
    indices = source.dataset(f"{chunk}/indices")
    if indices is not None and tuple(indices.shape or ()) != (count,):
        shape = list(indices.shape or ())
        raise ValueError(f"{source.path}: {name_of(indices)}: expected shape [{count}], one per pattern, got {shape}")
    return values.astype(np.float64)


def _weight(source: Source, chunks: list[str], counts: list[int], side: int) -> tuple[Tensor, np.ndarray] | None:
    """As :func:`weight_of`: of every frame, or of all frames."""
    of_chunks = [source.dataset(f"{chunk}/weights") for chunk in chunks]
    there = [dataset for dataset in of_chunks if dataset is not None and 0 not in (dataset.shape or (0,))]
    if there and len(there) != len(chunks):
        raise ValueError(f"{source.path}: chunks: expected weights in all or in none, {len(there)} have them")
    if not there:
        dataset = source.dataset("info/weight2d")
        if dataset is None or 0 in (dataset.shape or (0,)):
            return None
        return weight_of(source.path, name_of(dataset), source.array(dataset), sum(counts), side)
    made = []
    for dataset, count in zip(there, counts, strict=True):
        values = source.array(dataset)
        if values.shape not in ((side, side), (count, side, side)):
            expected = f"[{count}, {side}, {side}] or [{side}, {side}]"
            got = list(values.shape)
            raise ValueError(f"{source.path}: {name_of(dataset)}: expected shape {expected}, got {got}")
        made.append(np.broadcast_to(values, (count, side, side)))
    return weight_of(source.path, "chunks/*/weights", np.concatenate(made), sum(counts), side)


def _geometry(source: Source, side: int) -> Geometry:
    path = source.path
    energy = within(path, "meta/energy", source.number("meta/energy"), PHOTON_ENERGIES, "keV")
    distance = source.number("meta/distance")
    if distance is None:
        raise ValueError(f"{path}: expected meta/distance in m, found none")
    pixel = square_pixel(path, "meta/psize", *_pair(source, "meta/psize"))
    for length in _pair(source, "meta/shape"):
        if length is not None and length != side:
            raise ValueError(f"{path}: meta/shape: expected {side} x {side}, as the patterns are, got {length:g}")
    for center in _pair(source, "meta/center"):
        if center is not None and abs(center - side // 2) > 0.5:
            expected = f"the zero frequency at pixel {side // 2} of {side}"
            raise ValueError(f"{path}: meta/center: expected {expected}, got {center:g}")
    return checked_geometry(path, photon_wavelength(energy), distance, pixel, side)


def _pair(source: Source, name: str) -> tuple[float | None, float | None]:
    """Two numbers, or one for both; None where the file has none."""
    dataset = source.dataset(name)
    if dataset is None:
        return None, None
    values = source.array(dataset)
    if values.size not in (1, 2) or values.dtype.kind not in "iuf":
        got = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"{source.path}: {name}: expected one or two numbers, got {got}")
    first, last = values.ravel()[[0, -1]].tolist()
    return float(first), float(last)
