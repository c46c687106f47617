"""Files of ptychographic scans: one module per format, and here the choice of one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sem.hdf5 import library, reading
from sem.ptycho.files import cxi, lossless, npz, ptyd, results
from sem.ptycho.files.checks import AXES
from sem.ptycho.files.contents import Geometry, ScanFile, electron_wavelength, photon_wavelength
from sem.ptycho.files.results import ResultFile, is_result, read_result, write_result
from sem.ptycho.scan import MARGIN

__all__ = [
    "AXES",
    "Geometry",
    "ResultFile",
    "ScanFile",
    "electron_wavelength",
    "is_result",
    "photon_wavelength",
    "read_result",
    "read_scan",
    "write_result",
    "write_scan",
]


def read_scan(
    path: str | os.PathLike[str], *, margin: int = MARGIN, axes: str = "+y+x", scan_index: int | None = None
) -> ScanFile:
    """The scan in a file, whatever its suffix: a ``.cxi`` (NXcxi_ptycho), ``.ptyd`` (PtyPy) or ``.npz`` (PtychoPINN)
    file, or the ``.h5`` that :func:`write_scan` writes.

    Patterns come as float32 amplitudes ``[J, N, N]`` with the zero frequency at ``[0, 0]``, read in blocks; positions
    as float32 ``[J, 2]`` in pixels of the object, row first, the smallest at ``margin``; probe and object as complex64,
    never rescaled. A ``.h5`` comes back bit for bit, so that ``margin`` and ``axes`` must be left as they are.

    Args:
        margin: pixels of the object before the first patch.
        axes: which of the file's position axes, with which sign, runs down the rows and along the columns of its
            patterns: one of :data:`AXES`. A scan that was recorded with another orientation fits under one of them.
        scan_index: which scan of a ``.npz`` that holds several.

    Raises:
        OSError: there is no such file, or it may not be read.
        ImportError: the file is HDF5 and h5py is not installed.
        ValueError: the file is damaged, of no known format, or says what cannot be meant; the message names the file,
            the dataset, what was expected and what came.

    Example:
        >>> import tempfile
        >>> from sem.ptycho import disk_probe, lines_object, raster_scan, simulate
        >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 6))
        >>> geometry = Geometry(photon_wavelength(8.0), distance=2.0, detector_pixel=75e-6, side=16)
        >>> path = Path(tempfile.mkdtemp()) / "scan.cxi"
        >>> write_scan(path, ScanFile(scan, probe, geometry=geometry))
        >>> found = read_scan(path)
        >>> bool((found.scan.amplitudes == scan.amplitudes).all()), found.scan.positions.amin(0).tolist()
        (True, [8.0, 8.0])
    """
    path = Path(path)
    kind = _kind(path)
    if scan_index is not None and kind != "npz":
        raise ValueError(f"scan_index: only .npz files hold several scans, got {scan_index} for {path}")
    if kind == "lossless" and (margin, axes) != (MARGIN, "+y+x"):
        raise ValueError(f"margin, axes: {path} comes back as it was written, got {margin} and {axes!r}")
    with np.errstate(over="ignore", invalid="ignore"):  # what comes out infinite is found and said
        if kind == "npz":
            return npz.read(path, margin=margin, axes=axes, scan_index=scan_index)
        if kind == "cxi":
            return cxi.read(path, margin=margin, axes=axes)
        return ptyd.read(path, margin=margin, axes=axes) if kind == "ptyd" else lossless.read(path)


def write_scan(path: str | os.PathLike[str], contents: ScanFile) -> None:
    """Write a scan; the suffix says how. The file is complete or not there.

    ``.h5`` holds everything, bit for bit. ``.cxi`` holds counts, positions, a mask, a probe and a geometry, which it
    needs; ``.npz`` amplitudes, positions, an object, a geometry, and a probe, which it needs. All hold provenance.

    Raises:
        OSError: the file could not be written.
        ImportError: the file is HDF5 and h5py is not installed.
        ValueError: no such format, or one that cannot hold all of ``contents``: nothing is left out silently.
    """
    path = Path(path)
    writers = {".h5": lossless.write, ".cxi": cxi.write, ".npz": npz.write}
    if path.suffix.lower() not in writers:
        raise ValueError(
            f"{path}: expected a name that ends in {', '.join(writers)}, got {path.suffix or 'no suffix'!r}"
        )
    if not len(contents.scan):
        raise ValueError(f"{path}: scan: expected at least one pattern, got none")
    writers[path.suffix.lower()](path, contents)


def _kind(path: Path) -> str:
    """By content: what a file is named proves nothing."""
    with open(path, "rb") as file:
        begin = file.read(8)
    if begin[:4] == b"PK\x03\x04":
        return "npz"
    if not library().is_hdf5(path):
        got = f"one that begins with {begin!r}" if begin else "an empty file"
        raise ValueError(f"{path}: expected an HDF5 file or a .npz archive, got {got}")
    with reading(path) as source:
        said = str(source.attribute(source.root, "format"))
        if said == lossless.FORMAT:
            return "lossless"
        if said == results.FORMAT:
            raise ValueError(f"{path}: expected a scan, got a result, which sem ptycho compare reads")
        names = source.children("")
    if "entry_1" in names:
        return "cxi"
    if "chunks" in names:
        return "ptyd"
    expected = f"entry_1 (.cxi), chunks (.ptyd) or an attribute format '{lossless.FORMAT}' (.h5)"
    got = ", ".join(sorted(names)[:8]) or "nothing"
    raise ValueError(f"{path}: expected {expected}, got {got}")
