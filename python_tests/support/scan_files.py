"""Stored files of scans, copies of them that are damaged on purpose, and a scan to write."""

from pathlib import Path

import h5py
import numpy as np
import torch

from sem.ptycho import Geometry, Scan, ScanFile, disk_probe, lines_object, photon_wavelength, raster_scan, simulate

GOLDEN = Path(__file__).parents[1] / "ptychography" / "golden"
DETECTOR = "entry_1/instrument_1/detector_1"


def same_bits(first, second):
    """Whether two tensors, or None, are one to the bit."""
    if first is None or second is None:
        return first is second
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.numpy().tobytes() == second.numpy().tobytes()
    )


def odd_scan():
    """An odd side, so that ifftshift and fftshift differ, fractional positions, dead pixels and two modes."""
    side = 15
    generator = torch.Generator().manual_seed(0)
    positions = raster_scan(4, 5, 4).double() + torch.rand(20, 2, dtype=torch.float64, generator=generator)
    positions = (positions - positions.amin(0) + 8).float()
    probe = torch.cat([disk_probe(side), 0.5 * disk_probe(side, 2.0)])
    scan, probe = simulate(lines_object(50, 20, seed=1), probe, positions, photons=1e5, seed=2)
    weight = torch.ones(side, side)
    weight[2, 3] = weight[0, 14] = 0
    scan = Scan(scan.amplitudes, positions, weight)
    return ScanFile(scan, probe, None, Geometry(photon_wavelength(8.0), 2.0, 75e-6, side), "simulated, µ = 1")


def put(file, name, value):
    """Give an HDF5 file another value at ``name``, or, for None, nothing."""
    if name in file:
        del file[name]
    if value is not None:
        file[name] = value


def edited(folder, name, edit):
    """A copy of a stored file, changed by ``edit``."""
    path = folder / name
    path.write_bytes((GOLDEN / name).read_bytes())
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def npz(folder, **changes):
    """The stored .npz file with other arrays, or without those that are None."""
    with np.load(GOLDEN / "tiny.npz") as golden:
        arrays = {name: golden[name] for name in golden} | changes
    path = folder / "scan.npz"
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def changed(index, value, name):
    """An array of the stored .npz file with one number changed."""
    with np.load(GOLDEN / "tiny.npz") as golden:
        array = golden[name].astype(np.float64)
    array[index] = value
    return array
