"""Ptychography: scans, simulation, engines and scores on the exact forward model of :mod:`sem.ops`."""

from sem.ptycho.engines import PIE, Engine, MaximumLikelihood, Projections, Reconstruction, SweepReport
from sem.ptycho.lsq import LSQML
from sem.ptycho.metrics import Scores, aligned, floors, scores, ssim
from sem.ptycho.positions import position_steps, without_affine
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

__all__ = [
    "LSQML",
    "PIE",
    "Engine",
    "MaximumLikelihood",
    "Projections",
    "Reconstruction",
    "Scan",
    "Scores",
    "SweepReport",
    "aligned",
    "disk_probe",
    "far_intensity",
    "floors",
    "lines_object",
    "orthogonal_modes",
    "position_steps",
    "raster_scan",
    "scores",
    "simulate",
    "spiral_scan",
    "ssim",
    "with_hermite_modes",
    "without_affine",
]
