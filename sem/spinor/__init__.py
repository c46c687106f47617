"""Mixing of complex tokens along the sequence."""

from sem.spinor.complex_mamba3 import ComplexMamba3Layer, SpinorState, SpinorWeights

__all__ = ["ComplexMamba3Layer", "SpinorState", "SpinorWeights"]
