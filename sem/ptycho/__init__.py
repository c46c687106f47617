"""Ptychography: scans, simulation, engines and scores on the exact forward model of :mod:`sem.ops`."""

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
    ScanFile,
    electron_wavelength,
    photon_wavelength,
    read_scan,
    write_scan,
)
from sem.ptycho.files.state import read_state
from sem.ptycho.likelihood import MaximumLikelihood, lbfgs
from sem.ptycho.lsq import LSQML
from sem.ptycho.metrics import Scores, aligned, floors, scores, ssim
from sem.ptycho.pie import PIE
from sem.ptycho.positions import affine_onto, position_steps, without_affine
from sem.ptycho.projections import Projections
from sem.ptycho.scan import Scan
from sem.ptycho.simulation import (
    disk_probe,
    far_intensity,
    lines_object,
    orthogonal_modes,
    raster_scan,
    simulate,
    spiral_scan,
    with_hermite_modes,
)
from sem.ptycho.stops import after_seconds, after_sweeps, any_of, fits_noise, plateau

__all__ = [
    "AXES",
    "LSQML",
    "PIE",
    "AmplitudeRange",
    "AnnealPositions",
    "Engine",
    "Geometry",
    "MaximumLikelihood",
    "OrthogonalModes",
    "Penalty",
    "PhaseOnly",
    "ProbeCentred",
    "ProbePower",
    "ProbeSupport",
    "Projections",
    "Reconstruction",
    "RefinePositions",
    "Scan",
    "ScanFile",
    "Scores",
    "SmoothUnlit",
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
    "lbfgs",
    "lines_object",
    "orthogonal_modes",
    "photon_wavelength",
    "plateau",
    "position_steps",
    "raster_scan",
    "read_scan",
    "read_state",
    "scores",
    "simulate",
    "spiral_scan",
    "ssim",
    "total_variation",
    "with_hermite_modes",
    "without_affine",
    "write_scan",
]
