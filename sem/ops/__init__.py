"""Operators on complex waves: float32 kernels with exact gradients, usable in any model."""

from sem.ops.causal_conv import causal_conv
from sem.ops.cayley import cayley
from sem.ops.cg import cg_solve
from sem.ops.complex_rms_norm import complex_rms_norm
from sem.ops.diffraction import reference as reference_diffraction
from sem.ops.diffraction.inputs import (
    Curvature,
    DetectorFrame,
    Domains,
    Polarisation,
    Region,
    Sources,
    StructureFactors,
)
from sem.ops.diffraction.operator import TracedValue, diffraction, diffraction_trace
from sem.ops.exit_waves import OverlapSums, exit_waves, overlap_add
from sem.ops.far_residual import FarResidual, PatternStatus, far_residual
from sem.ops.gated_rotation import gated_rotation
from sem.ops.laplacian_cg import laplacian_cg
from sem.ops.laplacian_matvec import laplacian_matvec
from sem.ops.patches import Patches
from sem.ops.pit import phase_entropy, pit
from sem.ops.potential_step import potential_step
from sem.ops.ptychographic_loss import PtychographicLoss, ptychographic_loss
from sem.ops.ring_echo import ring_echo
from sem.ops.scan import scan
from sem.ops.shift_ramp import shift_ramp
from sem.ops.soliton_step import soliton_step
from sem.ops.solve import OnFailure, SolveError, SolveInfo, SolveStatus
from sem.ops.state_space import state_space
from sem.ops.topology import Topology
from sem.ops.wave_gate import wave_gate

__all__ = [
    "Curvature",
    "DetectorFrame",
    "Domains",
    "FarResidual",
    "OnFailure",
    "OverlapSums",
    "Patches",
    "PatternStatus",
    "Polarisation",
    "PtychographicLoss",
    "Region",
    "SolveError",
    "SolveInfo",
    "SolveStatus",
    "Sources",
    "StructureFactors",
    "Topology",
    "TracedValue",
    "causal_conv",
    "cayley",
    "cg_solve",
    "complex_rms_norm",
    "diffraction",
    "diffraction_trace",
    "exit_waves",
    "far_residual",
    "gated_rotation",
    "laplacian_cg",
    "laplacian_matvec",
    "overlap_add",
    "phase_entropy",
    "pit",
    "potential_step",
    "ptychographic_loss",
    "reference_diffraction",
    "ring_echo",
    "scan",
    "shift_ramp",
    "soliton_step",
    "state_space",
    "wave_gate",
]
