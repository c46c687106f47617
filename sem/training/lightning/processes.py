"""The processes that a Lightning strategy starts and connects, as the training loop sees them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch import distributed, nn

from sem.training.distributed import ALONE, BACKENDS, OneProcess, ProcessGroup, leave_at_exit


class LightningProcesses(ProcessGroup):
    """This process among those of a Trainer's strategy, which wraps the model and joins the gradients.

    Until the strategy has connected the processes, which it does when training starts, the first one acts alone: the
    others are started by it afterwards, or find what it has prepared.

    Args:
        trainer: of more than one process.
        timeout: seconds after which a silent process counts as lost.
    """

    def __init__(self, trainer: Trainer, timeout: float) -> None:
        # not the base class's: connecting is the strategy's affair
        self.strategy = trainer.strategy
        self.device = trainer.strategy.root_device
        self.timeout = timeout
        self.rank, self.world_size = trainer.global_rank, trainer.world_size
        self._heard = time.monotonic()
        leave_at_exit()  # which Lightning does with nccl's groups alone

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model`` as it is: the strategy wraps the Lightning module."""
        return model

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        return self.strategy.block_backward_sync() if isinstance(self.strategy, ParallelStrategy) else nullcontext()

    def first(self, action: Callable[[], object]) -> None:
        """As :meth:`ProcessGroup.first` once the processes are connected; before that the others do not wait."""
        if distributed.is_initialized():
            super().first(action)
        elif self.is_first:
            action()


def processes_of(trainer: Trainer, timeout: float) -> OneProcess:
    """The processes of a Trainer, or this one alone.

    Raises:
        ValueError: the processes are connected, but not on the CPU, where they agree on what to do.
    """
    if trainer.world_size == 1:
        return ALONE
    ranks = LightningProcesses(trainer, timeout)
    backend = str(distributed.get_backend_config()) if distributed.is_initialized() else "gloo"
    if "gloo" not in backend:
        wanted = BACKENDS[ranks.device.type]
        raise ValueError(
            f"strategy: expected a process group with gloo for the CPU, got {backend}; use "
            f"DDPStrategy(process_group_backend={wanted!r})"
        )
    return ranks
