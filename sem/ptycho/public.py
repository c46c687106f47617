"""The public names of :mod:`sem.ptycho`."""

from sem.ptycho.engines import PIE, Engine, Projections, Reconstruction, SweepReport
from sem.ptycho.files import (
    AXES,
    Geometry,
    ScanFile,
    electron_wavelength,
    photon_wavelength,
    read_scan,
    write_scan,
)
from sem.ptycho.likelihood import MaximumLikelihood
from sem.ptycho.lsq import LSQML
from sem.ptycho.metrics import Scores, aligned, floors, scores, ssim
from sem.ptycho.positions import position_steps, without_affine
from sem.ptycho.presets import PRESETS, Simulation, preset
from sem.ptycho.scan import Scan
from sem.ptycho.simulation import (
    disk_probe,
    far_intensity,
    lines_object,
    noise_object,
    orthogonal_modes,
    raster_scan,
    siemens_object,
    simulate,
    spiral_scan,
    with_hermite_modes,
)

__all__ = [
    "AXES",
    "LSQML",
    "PIE",
    "PRESETS",
    "Engine",
    "Geometry",
    "MaximumLikelihood",
    "Projections",
    "Reconstruction",
    "Scan",
    "ScanFile",
    "Scores",
    "Simulation",
    "SweepReport",
    "aligned",
    "disk_probe",
    "electron_wavelength",
    "far_intensity",
    "floors",
    "lines_object",
    "noise_object",
    "orthogonal_modes",
    "photon_wavelength",
    "position_steps",
    "preset",
    "raster_scan",
    "read_scan",
    "scores",
    "siemens_object",
    "simulate",
    "spiral_scan",
    "ssim",
    "with_hermite_modes",
    "without_affine",
    "write_scan",
]
