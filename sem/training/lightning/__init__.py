"""The plain loop's steps under a Lightning ``Trainer``: the user's own, or what ``--engine lightning`` makes."""

from sem.extras import how_to_install

try:
    import lightning.pytorch  # noqa: F401
except ImportError:
    raise ImportError(f"training with Lightning needs lightning: {how_to_install('lightning')}") from None

from sem.training.lightning.callbacks import HealthMonitor, RunCheckpoint, RunEnd, RunReport
from sem.training.lightning.data import SEMDataModule
from sem.training.lightning.engine import LightningSteps, SEMLightningTrainer, fit_with_lightning
from sem.training.lightning.module import SEMLightningModule
from sem.training.lightning.precision import SEMPrecisionPlugin
from sem.training.lightning.xpu import XPUAccelerator

__all__ = [
    "HealthMonitor",
    "LightningSteps",
    "RunCheckpoint",
    "RunEnd",
    "RunReport",
    "SEMDataModule",
    "SEMLightningModule",
    "SEMLightningTrainer",
    "SEMPrecisionPlugin",
    "XPUAccelerator",
    "fit_with_lightning",
]
