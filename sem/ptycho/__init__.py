"""Ptychography: scans, simulation, engines and scores on the exact forward model of :mod:`sem.ops`."""

from sem.ptycho.alignment import aligned, registered
from sem.ptycho.collapse import (
    ImageCheck,
    LossCheck,
    PatchCheck,
    Verdict,
    check_image,
    check_losses,
    check_patches,
    judge,
)
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
from sem.ptycho.frc import RingCorrelation, ring_correlation
from sem.ptycho.generators import GeneratorSettings, SpectralConv2d, build_generator
from sem.ptycho.likelihood import MaximumLikelihood
from sem.ptycho.lsq import LSQML
from sem.ptycho.metrics import Comparison, Scores, compare, floors, scores, ssim
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
from sem.ptycho.stitching import Stitched, stitch

__all__ = [
    "AXES",
    "LSQML",
    "PIE",
    "Comparison",
    "Engine",
    "GeneratorSettings",
    "Geometry",
    "ImageCheck",
    "LossCheck",
    "MaximumLikelihood",
    "PatchCheck",
    "Projections",
    "Reconstruction",
    "RingCorrelation",
    "Scan",
    "ScanFile",
    "Scores",
    "SpectralConv2d",
    "Stitched",
    "SweepReport",
    "Verdict",
    "aligned",
    "build_generator",
    "check_image",
    "check_losses",
    "check_patches",
    "compare",
    "disk_probe",
    "electron_wavelength",
    "far_intensity",
    "floors",
    "judge",
    "lines_object",
    "orthogonal_modes",
    "photon_wavelength",
    "position_steps",
    "raster_scan",
    "read_scan",
    "registered",
    "ring_correlation",
    "scores",
    "simulate",
    "spiral_scan",
    "ssim",
    "stitch",
    "with_hermite_modes",
    "without_affine",
    "write_scan",
]
