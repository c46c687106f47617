"""Unitary motion of the wave within each token."""

from sem.propagator.cayley_soliton import CayleySolitonPropagator, CayleySolitonStack, PropagatorWeights
from sem.propagator.hamiltonian import GraphLaplacianHamiltonian, MultiScaleHamiltonian

__all__ = [
    "CayleySolitonPropagator",
    "CayleySolitonStack",
    "GraphLaplacianHamiltonian",
    "MultiScaleHamiltonian",
    "PropagatorWeights",
]
