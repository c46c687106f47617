"""What a Lightning training of a SEMLightningModule does beside stepping: watch, score, log, show, keep, stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from sem.signals import stop_on_signals
from sem.training.checkpoint import CheckpointStore
from sem.training.lightning.module import SEMLightningModule
from sem.training.loop import TrainingLoop


class HealthMonitor(Callback):
    """Says when a quantity that is watched leaves its healthy range; measured every ``training.health_every`` steps.

    Args:
        say: takes one sentence per departure; by default the display of the module's loop does, or ``print``.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.say = say

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say what has left its range in this step; the first process alone speaks."""
        module = _own(pl_module)
        display = module.loop.display
        say = self.say or (print if display is None else display.message)
        for departure in module.loop.departures(module.figures):
            if trainer.is_global_zero:
                say(departure)


class RunReport(ProgressBar):
    """Scores held-out text when it is due, writes logs and shows the progress, all as the module's loop was told."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = ExitStack()

    def disable(self) -> None:
        """Nothing to do: a process that shows nothing has a display that does not."""

    def enable(self) -> None:
        """Nothing to do."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the loop's display, if it has one."""
        display = _own(pl_module).loop.display
        if display is not None:
            self._shown.enter_context(display)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Score, log and show what is due after this step."""
        module = _own(pl_module)
        module.loop.report(module.figures, finished=module.loop.finished)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the display."""
        self._shown.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the display before the error is printed."""
        self._shown.close()


class RunEnd(Callback):
    """Ends the training where the module's loop ends: after its schedule, or after the step in which SIGINT or SIGTERM
    reached any of the processes."""

    def __init__(self) -> None:
        self._handlers = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse processes that do not begin alike, listen to signals, and end at once a run that is done already."""
        loop = _own(pl_module).loop
        loop.check_common_start()
        loop.stop = self._handlers.enter_context(stop_on_signals())
        trainer.should_stop = loop.finished

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the Trainer where the run is done, or a signal has asked for it that all processes know of."""
        loop = _own(pl_module).loop
        trainer.should_stop = loop.finished or loop.stopping

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the signal handlers back."""
        self._handlers.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the signal handlers back."""
        self._handlers.close()


class RunCheckpoint(ModelCheckpoint):
    """Lets the module's loop write its checkpoints: every ``training.checkpoint_every`` steps and at the end, none of a
    skipped step, each complete or not there at all. The plain loop continues from them, as this does from the plain
    loop's."""

    def __init__(self, store: CheckpointStore) -> None:
        super().__init__(dirpath=store.folder, save_top_k=-1)
        self.store = store

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint where one is due after this step."""
        loop = _own(pl_module).loop
        if loop.checkpoint_due:
            self._save_run(loop)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: a run ends with :meth:`on_train_end`."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: checkpoints are counted in steps."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last checkpoint, unless the last step has one."""
        loop = _own(pl_module).loop
        if not loop.saved:
            self._save_run(loop)

    def _save_run(self, loop: TrainingLoop) -> None:
        loop.save()
        self.best_model_path = self.last_model_path = str(self.store.path(loop.state.step))


def _own(pl_module: LightningModule) -> SEMLightningModule:
    if not isinstance(pl_module, SEMLightningModule):
        raise TypeError(f"callbacks: expected a SEMLightningModule to serve, got {type(pl_module).__name__}")
    return pl_module
