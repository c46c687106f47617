"""A network's run whose steps a Lightning ``Trainer`` takes."""

from __future__ import annotations

from sem.ptycho.training.trainer import NetworkTrainer
from sem.training.lightning import LightningSteps


class NetworkLightningTrainer(LightningSteps, NetworkTrainer):
    """A :class:`~sem.ptycho.training.trainer.NetworkTrainer` whose steps a Lightning ``Trainer`` takes. Either engine
    continues the other's checkpoints."""
