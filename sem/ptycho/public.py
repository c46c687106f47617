"""The public names of :mod:`sem.ptycho`."""

from sem.ptycho.constraints import (
    AmplitudeRange,
    AnnealPositions,
    OrthogonalModes,
    Penalty,
    PhaseOnly,
    ProbeCentred,
    ProbePower,
    ProbeSupport,
    RefinePositions,
    SmoothUnlit,
    total_variation,
)
from sem.ptycho.engine import Engine, Reconstruction, SweepReport
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
from sem.ptycho.files.state import read_state
from sem.ptycho.inspection import Inspection, inspect_scan, try_axes
from sem.ptycho.likelihood import MaximumLikelihood, lbfgs
from sem.ptycho.lsq import LSQML
from sem.ptycho.metrics import Scores, aligned, floors, scores, ssim
from sem.ptycho.pie import PIE
from sem.ptycho.positions import affine_onto, position_steps, without_affine
from sem.ptycho.presets import PRESETS, Simulation, preset
from sem.ptycho.projections import Projections
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
from sem.ptycho.stops import after_seconds, after_sweeps, any_of, fits_noise, plateau

__all__ = [
    "AXES",
    "AmplitudeRange",
    "AnnealPositions",
    "Engine",
    "Geometry",
    "Inspection",
    "LSQML",
    "MaximumLikelihood",
    "OrthogonalModes",
    "PIE",
    "PRESETS",
    "Penalty",
    "PhaseOnly",
    "ProbeCentred",
    "ProbePower",
    "ProbeSupport",
    "Projections",
    "Recipe",
    "Reconstruction",
    "RefinePositions",
    "ResultFile",
    "Run",
    "Scan",
    "ScanFile",
    "Scores",
    "Simulation",
    "SmoothUnlit",
    "Stage",
    "Sweep",
    "SweepReport",
    "affine_onto",
    "after_seconds",
    "after_sweeps",
    "aligned",
    "any_of",
    "disk_probe",
    "electron_wavelength",
    "far_intensity",
    "fits_noise",
    "floors",
    "inspect_scan",
    "is_result",
    "lbfgs",
    "lines_object",
    "noise_object",
    "orthogonal_modes",
    "photon_wavelength",
    "plateau",
    "position_steps",
    "preset",
    "raster_scan",
    "read_result",
    "read_scan",
    "read_state",
    "scores",
    "siemens_object",
    "simulate",
    "spiral_scan",
    "ssim",
    "total_variation",
    "try_axes",
    "with_hermite_modes",
    "without_affine",
    "write_result",
    "write_scan",
]
