"""Scans in the Coherent X-ray Imaging format, as its profile NXcxi_ptycho has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sem.hdf5 import Source, name_of, reading, writing
from sem.ptycho.files.checks import (
    PHOTON_ENERGIES,
    WAVELENGTHS,
    checked_geometry,
    placed,
    probe_of,
    square_pixel,
    within,
)
from sem.ptycho.files.contents import PHOTON, Geometry, ScanFile, electron_wavelength, photon_wavelength
from sem.ptycho.files.patterns import as_counts, binary_mask, frames, in_the_middle, read_counts, weight_of
from sem.ptycho.scan import Scan

DETECTOR = "entry_1/instrument_1/detector_1"
BEAM = "entry_1/instrument_1/beam_1"
SOURCE = "entry_1/instrument_1/source_1"
DATA = ("entry_1/data_1/data", f"{DETECTOR}/data")
TRANSLATION = ("entry_1/data_1/translation", "entry_1/sample_1/geometry_1/translation")
NOTE = "entry_1/note_1/description"
KEV = 1.602176634e-16
"""Joule."""
HAS_SIGNAL = 0x1000
"""The one bit of a mask that says nothing bad."""
METRES = ("m", "meter", "metre", "meters", "metres")
JOULES = ("j", "joule", "joules")


def read(path: Path, *, margin: int, axes: str) -> ScanFile:
    """The scan in a ``.cxi`` file. Its translations are the sample's: the beam moves by their negative.

    Raises:
        ValueError: the file is damaged, lacks something, or says what cannot be meant.
    """
    with reading(path) as source:
        data = source.needed(*DATA)
        count, side = frames(path, name_of(data), data)
        geometry = _geometry(source, side)
        translation = source.needed(*TRANSLATION)
        pixels = _positions(source, translation, count) / geometry.object_pixel
        positions = placed(path, name_of(translation), pixels, side, margin, axes)
        weight = None
        mask = source.dataset(f"{DETECTOR}/mask")
        if mask is not None:
            weight = weight_of(path, name_of(mask), _valid(source, mask), count, side)
        wave = source.dataset(f"{SOURCE}/probe")
        scan = Scan(
            read_counts(source, [data], None if weight is None else weight[1]),
            positions,
            None if weight is None else weight[0],
        )
        probe = None if wave is None else probe_of(path, name_of(wave), source.array(wave), side)
        return ScanFile(scan, probe, None, geometry, source.text(NOTE))


def _positions(source: Source, dataset: Any, count: int) -> np.ndarray:
    """Of the beam, ``[J, 2]`` (y, x) in metres."""
    source.check_units(dataset, METRES)
    values = source.array(dataset)
    values = values.reshape(-1, values.shape[-1]) if values.ndim == 3 else values  # of a raster
    if values.shape != (count, 3) or values.dtype.kind not in "iuf":
        expected = f"real [{count}, 3], an x, y and z per pattern"
        got = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"{source.path}: {name_of(dataset)}: expected {expected}, got {got}")
    return -values[:, 1::-1].astype(np.float64)


def _valid(source: Source, mask: Any) -> np.ndarray:
    bits = source.array(mask)
    whole = bits.dtype.kind in "biu" or (bits.dtype.kind == "f" and bool((np.mod(bits, 1) == 0).all()))
    if not whole:
        raise ValueError(f"{source.path}: {name_of(mask)}: expected bits, whole numbers, got {bits.dtype}")
    bits = bits.reshape(-1, *bits.shape[-2:]) if bits.ndim == 4 else bits
    return (bits.astype(np.int64) & ~HAS_SIGNAL) == 0


def _geometry(source: Source, side: int) -> Geometry:
    path = source.path
    pixel = square_pixel(
        path,
        f"{DETECTOR}/y_pixel_size and x_pixel_size",
        source.number(f"{DETECTOR}/y_pixel_size", units=METRES),
        source.number(f"{DETECTOR}/x_pixel_size", units=METRES),
    )
    distance = source.number(f"{DETECTOR}/distance", units=METRES)
    if distance is None:
        raise ValueError(f"{path}: expected {DETECTOR}/distance in m, found none")
    return checked_geometry(path, _wavelength(source), distance, pixel, side)


def _wavelength(source: Source) -> float:
    """In Angstrom, of everything that the file says of it, which must agree."""
    path = source.path
    told = source.number(f"{BEAM}/incident_wavelength", units=METRES)
    if told is not None:
        told = within(path, f"{BEAM}/incident_wavelength", told * 1e10, WAVELENGTHS, "Angstrom (metres in the file)")
    for name in (f"{BEAM}/energy", f"{BEAM}/incident_energy", f"{SOURCE}/energy"):
        energy = source.number(name, units=JOULES)
        if energy is None:
            continue
        energy /= KEV
        if told is None:
            return photon_wavelength(within(path, name, energy, PHOTON_ENERGIES, "keV (joules in the file)"))
        ways = [wave(energy) for wave in (photon_wavelength, electron_wavelength) if energy > 0]
        if not any(abs(way - told) < 0.01 * told for way in ways):
            expected = f"{PHOTON / told:.6g} keV, which belongs to a wavelength of {told:.6g} Angstrom"
            raise ValueError(f"{path}: {name}: expected {expected}, got {energy:.6g} keV; is the unit right?")
    if told is None:
        raise ValueError(f"{path}: expected {BEAM}/incident_wavelength, {BEAM}/energy or {SOURCE}/energy, found none")
    return told


def write(path: Path, contents: ScanFile) -> None:
    """The scan as a ``.cxi`` file, with what the format can hold.

    Raises:
        ValueError: there is no geometry, or something that the format cannot hold.
    """
    scan, geometry = contents.scan, contents.geometry
    if geometry is None:
        raise ValueError(f"{path}: a .cxi file needs a geometry, got None")
    checked_geometry(path, geometry.wavelength, geometry.distance, geometry.detector_pixel, geometry.side)
    if contents.object is not None or scan.background is not None:
        raise ValueError(f"{path}: a .cxi file holds no object and no background; leave them out, or write .h5")
    mask = None if scan.weight is None else ~in_the_middle(binary_mask(path, scan.weight))
    counts = as_counts(path, scan.amplitudes)
    metres = scan.positions.detach().double().cpu().numpy() * geometry.object_pixel
    with writing(path) as file:
        file["cxi_version"] = 160
        detector = file.create_group(DETECTOR)
        detector.create_dataset("data", data=in_the_middle(counts), chunks=(1, *counts.shape[1:]), compression="gzip")
        for name, value in (
            ("distance", geometry.distance),
            ("x_pixel_size", geometry.detector_pixel),
            ("y_pixel_size", geometry.detector_pixel),
        ):
            detector[name] = value
            detector[name].attrs["units"] = "m"
        if mask is not None:
            detector["mask"] = mask.astype(np.int32)
        file[f"{BEAM}/incident_wavelength"] = geometry.wavelength * 1e-10
        file[f"{BEAM}/incident_wavelength"].attrs["units"] = "m"
        translation = np.stack([-metres[:, 1], -metres[:, 0], np.zeros(len(metres))], 1)
        file[TRANSLATION[1]] = translation
        file[TRANSLATION[1]].attrs["units"] = "m"
        if contents.probe is not None:
            file[f"{SOURCE}/probe"] = contents.probe.detach().cpu().numpy()
        if contents.provenance:
            file[NOTE] = contents.provenance
        links = file.create_group("entry_1/data_1")
        links["data"] = _soft(DATA[1])
        links["translation"] = _soft(TRANSLATION[1])


def _soft(target: str) -> Any:
    import h5py

    return h5py.SoftLink(f"/{target}")
