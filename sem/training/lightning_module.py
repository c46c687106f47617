"""The original name of :mod:`sem.training.lightning.module`."""

from sem.training.lightning.module import SEMLightningModule

__all__ = ["SEMLightningModule"]
