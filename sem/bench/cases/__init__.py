"""Every benchmark there is, one module per operator."""

from sem.bench.cases import cayley, diffraction, laplacian_matvec, pit, ptychography, scan, state_space
from sem.bench.cases.growth import GROWTH, QUICK_GROWTH
from sem.bench.registry import Registry

_OPERATORS = (cayley, laplacian_matvec, pit, scan, state_space, diffraction, ptychography)
BENCHMARKS = Registry([benchmark for operator in _OPERATORS for benchmark in operator.BENCHMARKS])
QUICK = Registry([benchmark for operator in _OPERATORS for benchmark in operator.QUICK])

__all__ = ["BENCHMARKS", "GROWTH", "QUICK", "QUICK_GROWTH"]
