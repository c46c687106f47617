"""A run in a folder whose steps a Lightning ``Trainer`` takes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from sem.config import SEMConfig
from sem.precision import PrecisionPolicy
from sem.training.devices import resolve_device
from sem.training.distributed import BACKENDS, OneProcess, launched
from sem.training.lightning.callbacks import HealthMonitor, RunCheckpoint, RunEnd, RunReport
from sem.training.lightning.data import SEMDataModule
from sem.training.lightning.module import SEMLightningModule
from sem.training.lightning.precision import SEMPrecisionPlugin
from sem.training.lightning.processes import processes_of
from sem.training.lightning.xpu import XPUAccelerator
from sem.training.loop import TrainingLoop
from sem.training.run import RunTrainer, TrainingResult
from sem.training.trainer import SEMTrainer


class LightningSteps(RunTrainer):
    """To be named before a :class:`~sem.training.run.RunTrainer` among a class's bases: a Lightning ``Trainer`` takes
    the steps of its runs, on one device or several."""

    def _choose_device(self) -> torch.device:
        training = self.config.training
        device = resolve_device(training.device)
        PrecisionPolicy.for_device(training.precision_mode, device)
        callbacks = [HealthMonitor(), RunReport(), RunEnd(), RunCheckpoint(self.store)]
        with _quiet():
            self.lightning = build_trainer(self.config, device, callbacks)
        self.check_processes(self.lightning.world_size)
        return self.lightning.strategy.root_device

    def _join(self) -> OneProcess:
        return processes_of(self.lightning, self.config.training.distributed_timeout)

    def _drive(self, loop: TrainingLoop) -> str | None:
        module = SEMLightningModule(self.config, model=self.model, loop=loop)
        data = SEMDataModule(self.config, loaders=(self.train_loader, self.validation_loader))
        try:
            with self.ranks.guard(), _quiet():
                self.lightning.fit(module, datamodule=data)
        except BaseException:
            self._end_other_processes()
            raise
        self.model.to(self.device)  # Lightning leaves it on the CPU
        return loop.signal_name()

    def _end_other_processes(self) -> None:
        """Those that this one has started would wait for it in vain."""
        launcher = self.lightning.strategy.launcher
        if launcher is not None:
            launcher.kill(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)


class SEMLightningTrainer(LightningSteps, SEMTrainer):
    """A :class:`~sem.training.trainer.SEMTrainer` whose steps a Lightning ``Trainer`` takes, on one device or several.

    The run's folder is as the plain loop leaves it, and either engine continues the other's checkpoints, all of their
    state. With several devices Lightning starts one process for each by running the command line again, so a script
    that uses this does so under ``if __name__ == "__main__":``.

    Arguments and errors are those of :class:`~sem.training.trainer.SEMTrainer`.

    Example:
        >>> import tempfile
        >>> sizes = ("model.hidden_dim=16", "model.num_layers=1", "model.max_seq_length=32", "spinor.state_dim=4")
        >>> run = ("training.max_steps=1", "training.eval_batches=1", "training.final_eval_batches=1")
        >>> folder = f"training.output_dir={tempfile.mkdtemp()}"
        >>> config = SEMConfig().with_overrides(*sizes, *run, folder)
        >>> SEMLightningTrainer(config).fit().step  # doctest: +ELLIPSIS
        precision 32-true...
        1
    """


def fit_with_lightning(
    config: SEMConfig, *, resume: str | Path | None = None, overwrite: bool = False, **parts: Any
) -> TrainingResult:
    """Train as ``config`` says under Lightning.

    Args:
        resume, overwrite: as :meth:`sem.training.trainer.SEMTrainer.fit` takes them.
        parts: as :class:`sem.training.trainer.SEMTrainer` takes them.

    Raises:
        ValueError, CheckpointError, TrainingDiverged, ProcessLost: as :meth:`sem.training.trainer.SEMTrainer.fit`.
    """
    return SEMLightningTrainer(config, **parts).fit(resume=resume, overwrite=overwrite)


def build_trainer(config: SEMConfig, device: torch.device, callbacks: list[Callback]) -> Trainer:
    """The Trainer that ``config`` asks for: its devices, strategy and precision, and nothing that it does unasked.

    Raises:
        ValueError: one device is named for several processes.
    """
    training = config.training
    devices, num_nodes = training.devices, training.num_nodes
    if launched():
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    several = devices * num_nodes > 1 or training.strategy == "ddp"
    if device.index is not None and several:
        raise ValueError(
            f"training.device = {str(device)!r}: expected {device.type!r} for {devices} processes, one device each"
        )
    accelerator = XPUAccelerator() if device.type == "xpu" else None
    strategy: Any = "auto"
    if several:
        strategy = DDPStrategy(
            accelerator=accelerator,
            process_group_backend=BACKENDS[device.type],
            timeout=timedelta(seconds=training.distributed_timeout),
            gradient_as_bucket_view=True,
        )
    elif accelerator is not None:
        strategy = SingleDeviceStrategy(torch.device("xpu", device.index or 0), accelerator)
    return Trainer(
        accelerator="auto" if accelerator is not None else device.type,
        devices=devices if device.index is None or device.type == "cpu" else [device.index],
        num_nodes=num_nodes,
        strategy=strategy,
        plugins=[SEMPrecisionPlugin(training.precision_mode, device=device.type)],
        callbacks=callbacks,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        use_distributed_sampler=False,
        enable_model_summary=False,
        default_root_dir=training.output_dir,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks about itself; the run has a display of its own."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
