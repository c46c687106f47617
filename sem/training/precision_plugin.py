"""The original name of :mod:`sem.training.lightning.precision`."""

from sem.training.lightning.precision import SEMPrecisionPlugin

__all__ = ["SEMPrecisionPlugin"]
