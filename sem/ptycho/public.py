"""The public names of :mod:`sem.ptycho`."""

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
from sem.ptycho.frc import RingCorrelation, ring_correlation
from sem.ptycho.generators import GeneratorSettings, SpectralConv2d, build_generator
from sem.ptycho.inspection import Inspection, inspect_scan, try_axes
from sem.ptycho.likelihood import MaximumLikelihood, lbfgs
from sem.ptycho.lsq import LSQML
from sem.ptycho.metrics import Comparison, Scores, compare, floors, scores, ssim
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
from sem.ptycho.starts import Start, begin_from
from sem.ptycho.stitching import Stitched, stitch
from sem.ptycho.stops import after_seconds, after_sweeps, any_of, fits_noise, plateau

__all__ = [
    "AXES",
    "AmplitudeRange",
    "AnnealPositions",
    "Comparison",
    "Engine",
    "GeneratorSettings",
    "Geometry",
    "ImageCheck",
    "Inspection",
    "LSQML",
    "LossCheck",
    "MaximumLikelihood",
    "OrthogonalModes",
    "PIE",
    "PRESETS",
    "PatchCheck",
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
    "RingCorrelation",
    "Run",
    "Scan",
    "ScanFile",
    "Scores",
    "Simulation",
    "SmoothUnlit",
    "SpectralConv2d",
    "Stage",
    "Start",
    "Stitched",
    "Sweep",
    "SweepReport",
    "Verdict",
    "affine_onto",
    "after_seconds",
    "after_sweeps",
    "aligned",
    "any_of",
    "begin_from",
    "build_generator",
    "check_image",
    "check_losses",
    "check_patches",
    "compare",
    "disk_probe",
    "electron_wavelength",
    "far_intensity",
    "fits_noise",
    "floors",
    "inspect_scan",
    "is_result",
    "judge",
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
    "registered",
    "ring_correlation",
    "scores",
    "siemens_object",
    "simulate",
    "spiral_scan",
    "ssim",
    "stitch",
    "total_variation",
    "try_axes",
    "with_hermite_modes",
    "without_affine",
    "write_result",
    "write_scan",
]
