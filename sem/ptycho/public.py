"""The public names of :mod:`sem.ptycho`."""

from sem.ptycho.engines import PIE, Engine, Projections, Reconstruction, SweepReport
from sem.ptycho.files import (
    AXES,
    Geometry,
    ResultFile,
    ScanFile,
    electron_wavelength,
    is_result,
    photon_wavelength,
    read_result,
    read_scan,
    write_result,
    write_scan,
)
from sem.ptycho.inspection import Inspection, inspect_scan, try_axes
from sem.ptycho.likelihood import MaximumLikelihood
from sem.ptycho.lsq import LSQML
from sem.ptycho.metrics import Scores, aligned, floors, scores, ssim
from sem.ptycho.positions import position_steps, without_affine
from sem.ptycho.presets import PRESETS, Simulation, preset
from sem.ptycho.recipes import Recipe, Stage
from sem.ptycho.runs import Run, Sweep
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
    "Inspection",
    "MaximumLikelihood",
    "Projections",
    "Recipe",
    "Reconstruction",
    "ResultFile",
    "Run",
    "Scan",
    "ScanFile",
    "Scores",
    "Simulation",
    "Stage",
    "Sweep",
    "SweepReport",
    "aligned",
    "disk_probe",
    "electron_wavelength",
    "far_intensity",
    "floors",
    "inspect_scan",
    "is_result",
    "lines_object",
    "noise_object",
    "orthogonal_modes",
    "photon_wavelength",
    "position_steps",
    "preset",
    "raster_scan",
    "read_result",
    "read_scan",
    "scores",
    "siemens_object",
    "simulate",
    "spiral_scan",
    "ssim",
    "try_axes",
    "with_hermite_modes",
    "without_affine",
    "write_result",
    "write_scan",
]
