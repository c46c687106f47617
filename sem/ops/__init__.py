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
from sem.ops.gated_rotation import gated_rotation
from sem.ops.laplacian_cg import laplacian_cg
from sem.ops.laplacian_matvec import laplacian_matvec
from sem.ops.pit import phase_entropy, pit
from sem.ops.scan import scan
from sem.ops.soliton_step import soliton_step
from sem.ops.solve import OnFailure, SolveError, SolveInfo, SolveStatus
from sem.ops.state_space import state_space
from sem.ops.topology import Topology

__all__ = [
    "Curvature",
    "DetectorFrame",
    "Domains",
    "OnFailure",
    "Polarisation",
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
    "gated_rotation",
    "laplacian_cg",
    "laplacian_matvec",
    "phase_entropy",
    "pit",
    "reference_diffraction",
    "scan",
    "soliton_step",
    "state_space",
]
