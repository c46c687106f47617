"""A training run in a folder: device, processes, folder, resuming, logs and the way to the end. What is trained, a
subclass says."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from torch import nn

from sem.precision import PrecisionPolicy, effective_precision, use_precision
from sem.run_names import CHECKPOINTS, OVERWRITTEN, UNFINISHED
from sem.settings import changed_settings
from sem.training.checkpoint import CheckpointError, CheckpointStore
from sem.training.clipping import build_clipping
from sem.training.devices import prepare_for_device, resolve_device
from sem.training.distributed import OneProcess, accumulation, check_layout, join, own_device
from sem.training.logging import check_loggers, open_logs
from sem.training.loop import LoopSettings, TrainingLoop
from sem.training.optim import build_optimizer
from sem.training.progress import ProgressDisplay, Shown
from sem.training.run_folder import (
    AUTO_RESUME,
    find_checkpoint,
    holds_run,
    move_run,
    save_precision,
)
from sem.training.run_lock import RunLock
from sem.training.schedules import build_schedule
from sem.training.step import Objective
from sem.training.thread_count import AdaptiveThreads


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: steps done.
        figures: the last value of everything that was measured; of a run that came to its end, ``val_...`` are the
            scores in ``final.json``.
        interrupted_by: name of the signal that ended it early, or None.
    """

    step: int
    figures: dict[str, float]
    interrupted_by: str | None


class RunTrainer:
    """Base of what trains one model as a configuration says, and keeps the run in ``training.output_dir``.

    The folder gets ``config.yaml``, ``precision.json``, ``metrics.csv``, ``tensorboard/``, ``checkpoints/``, and what a
    subclass keeps and finishes with. A subclass gives :meth:`build_model`, :meth:`build_data`, :meth:`validate` and
    :meth:`finish`, and may give the others.

    Args:
        config: a :class:`~sem.configuration.Configuration` with a section ``training`` of
            :class:`~sem.run_settings.RunSettings`.
    """

    shown: ClassVar[tuple[Shown, ...]] = (Shown("loss", "loss", ".3f"),)
    """Figures of the live display."""
    model: Any
    """What :meth:`build_model` returned, on its device."""
    objective: Objective
    train_loader: Any
    """Endless micro-batches (:class:`sem.training.loop.Batches`) with ``close()``."""
    validation_loader: Any
    loop: TrainingLoop
    """What :meth:`build_loop` made last."""

    def __init__(self, config: Any) -> None:
        training = config.training
        self.config = config
        self.folder = Path(training.output_dir)
        check_loggers(training.loggers)
        self.device = self._choose_device()
        self.precision = PrecisionPolicy.for_device(training.precision_mode, self.device)
        if training.num_threads is not None:
            torch.set_num_threads(training.num_threads)
        self.ranks = self._join()
        torch.manual_seed(training.seed)
        self.model = self.build_model().to(self.device).train()
        use_precision(self.model, self.precision)
        if not self.ranks.is_first:
            torch.manual_seed(training.seed + self.ranks.rank)  # one model, but random draws of each process's own
        self.train_loader, self.validation_loader, self.objective = self.build_data()

    def build_model(self) -> nn.Module:
        """The model; torch's generator is seeded with ``training.seed``."""
        raise NotImplementedError

    def build_data(self) -> tuple[Any, Any, Objective]:
        """This process's endless micro-batches, its held-out ones, and what is minimised."""
        raise NotImplementedError

    def validate(self, *, final: bool = False) -> dict[str, float]:
        """Figures on held-out data, named ``val_...``: on some of it, or at the end of a run (``final``) on all."""
        raise NotImplementedError

    def finish(self, display: ProgressDisplay, step: int) -> dict[str, float]:
        """Write what a run leaves at its end; returns its scores. All processes call it, the first one writes."""
        raise NotImplementedError

    def keep(self, display: ProgressDisplay) -> None:
        """Write into the folder, at the start of a run, what its model needs beside a checkpoint."""

    def check_processes(self, world_size: int) -> None:
        """Refuse, with a ValueError, what so many processes cannot do."""
        accumulation(self.config.training, world_size)

    def loop_parts(self) -> dict[str, Any]:
        """What else the loop of this run is made of: measurements and their criteria, say."""
        return {}

    @functools.cached_property
    def store(self) -> CheckpointStore:
        """The run's checkpoints."""
        return CheckpointStore(self.folder / CHECKPOINTS, self.config.training.keep_checkpoints)

    def fit(
        self,
        *,
        resume: str | Path | None = None,
        overwrite: bool = False,
        display: ProgressDisplay | None = None,
    ) -> TrainingResult:
        """Train to the end, or until SIGINT or SIGTERM; the first of several processes alone writes and shows.

        Args:
            resume: a checkpoint, a run's folder (its newest undamaged checkpoint), or ``"auto"``: this run's
                folder if there is something to continue, else a new run.
            overwrite: replace an earlier run in the folder instead of refusing to mix with it: it is moved into
                ``overwritten`` there, and deleted once this run has written a checkpoint.
            display: what the user sees; a :class:`ProgressDisplay` on standard output by default.

        Raises:
            ValueError: the folder holds another run, another process trains there, or the checkpoint does not fit.
            CheckpointError: a checkpoint cannot be read or written.
            TrainingDiverged: too many non-finite steps in a row.
            ProcessLost: another process ended or fell silent.
        """
        first = self.ranks.is_first
        display = display or ProgressDisplay(self.shown, None if first else Console(quiet=True, force_terminal=False))
        loop = self.build_loop(store=self.store, display=display)
        with ExitStack() as held:

            def begin() -> None:
                lock = held.enter_context(RunLock(self.folder))
                if not lock.supported:
                    display.message(f"{self.folder}: no locks on this file system; see that nobody else trains there")
                self._begin(loop, display, resume, overwrite)

            self.ranks.first(begin)
            if not first and (found := find_checkpoint(resume, self.folder)) is not None:
                loop.load_state_dict(found[1])
            try:
                interrupted_by = self._drive(loop)
            finally:
                self.train_loader.close()
                if loop.threads is not None:
                    loop.threads.restore()
                if first:
                    save_precision(self.folder, self.model, self.precision)
                for log in loop.logs:
                    log.close()
            final = self.finish(display, loop.state.step) if interrupted_by is None else {}
        return TrainingResult(loop.state.step, loop.figures | final, interrupted_by)

    def _choose_device(self) -> torch.device:
        """The device of this process, checked against the configuration."""
        self.check_processes(check_layout(self.config.training))
        return own_device(resolve_device(self.config.training.device))

    def _join(self) -> OneProcess:
        """This process's place among those that train together."""
        return join(self.config.training, self.device)

    def _drive(self, loop: TrainingLoop) -> str | None:
        """Take ``loop`` to the end of the run, or to a signal, whose name is returned."""
        return loop.run()

    def build_loop(self, **options: Any) -> TrainingLoop:
        """The loop of this run, at its start; ``options`` replace or complete what is handed to it."""
        optimizer = build_optimizer(self.model, self.config.training)
        self.device_note = prepare_for_device(self.model, optimizer, self.device)
        parts: dict[str, Any] = {
            "model": self.model,
            "objective": self.objective,
            "optimizer": optimizer,
            "schedule": build_schedule(self.config.training),
            "batches": self.train_loader,
            "settings": build_settings(self.config, self.ranks.world_size),
            "validate": self.validate,
            "extra": {"config": self.config.to_dict()},
            "autocast": self.precision.forward_context,
            "threads": adaptive_threads(self.config.training, self.device),
            "ranks": self.ranks,
        }
        self.loop = TrainingLoop(**(parts | self.loop_parts() | options))
        return self.loop

    def _begin(self, loop: TrainingLoop, display: ProgressDisplay, resume: str | Path | None, overwrite: bool) -> None:
        """Bring ``loop`` and the folder to the point from which the run goes on, and say what run it is."""
        saved = self._prepare_folder(loop, resume, overwrite)
        if loop.state.step:
            display.message(f"continuing after step {loop.state.step}")
        for change in changed_settings(saved, self.config.to_dict()) if saved else ():
            if not change.startswith("training.output_dir"):
                display.message(f"changed since the checkpoint: {change}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.save(self.folder / "config.yaml")
        self.keep(display)
        self._tell_precision(display)
        names = self.config.training.loggers
        loop.logs = open_logs(names, self.folder, loop.state.step, self.config.to_dict(), display.message)

    def _prepare_folder(self, loop: TrainingLoop, resume: str | Path | None, overwrite: bool) -> dict[str, Any]:
        """Load what the run continues from, and clear the folder of what it does not; returns the configuration of what
        was loaded, nothing if nothing was."""
        if overwrite and resume is not None:
            raise ValueError(f"overwrite: expected no resume beside it, got resume = {str(resume)!r}")
        if overwrite and holds_run(self.folder):
            self.store.replaces = move_run(self.folder, OVERWRITTEN)
        found = find_checkpoint(resume, self.folder, own=True)
        elsewhere = found is None or found[0].resolve().parent != self.store.folder.resolve()
        if elsewhere and holds_run(self.folder):
            self._refuse_to_mix(resume)
            move_run(self.folder, UNFINISHED)
        if found is None:
            return {}
        loop.load_state_dict(found[1])
        self.store.set_aside_after(loop.state.step)
        saved = found[1].get("config")
        return {} if saved is None else type(self.config).from_dict(saved).to_dict()

    def _refuse_to_mix(self, resume: str | Path | None) -> None:
        """Unless all that there is of an earlier run is a log without a checkpoint, and it may be begun again."""
        if str(resume) != AUTO_RESUME:
            raise ValueError(
                f"training.output_dir = {str(self.folder)!r}: expected a folder without a run, this one "
                "holds one; continue it with --resume, replace it with --overwrite or name another folder"
            )
        unusable = [path.name for path in (*self.store.paths(), *self.store.unusable())]
        if unusable:
            raise CheckpointError(
                f"{self.store.folder}: expected a checkpoint to continue from, found only {', '.join(unusable)}, which "
                "were set aside; name one with --resume, or start anew with --overwrite"
            )

    def _tell_precision(self, display: ProgressDisplay) -> None:
        stages = effective_precision(self.model, self.precision)
        told = ", ".join(f"{name} {precision}" for name, precision in stages.items())
        display.message(f"precision {self.precision.mode} on {self.device}: {told}")
        if self.device_note is not None:
            display.message(self.device_note)
        save_precision(self.folder, self.model, self.precision)


def adaptive_threads(training: Any, device: torch.device) -> AdaptiveThreads | None:
    """What chooses the threads of a run on a CPU, if ``training.adapt_threads`` asks for it: as many as there are now,
    or fewer. A compiled model keeps its number, which is part of its code."""
    if device.type != "cpu" or not training.adapt_threads or getattr(training, "compile", False):
        return None
    return AdaptiveThreads(torch.get_num_threads())


def build_settings(config: Any, world_size: int = 1) -> LoopSettings:
    """The loop's intervals and limits from ``config.training``, for one of ``world_size`` processes."""
    training = config.training
    return LoopSettings(
        accumulation=accumulation(training, world_size),
        clipping=build_clipping(training),
        log_every=training.log_every,
        eval_every=training.eval_every,
        checkpoint_every=training.checkpoint_every,
        health_every=training.health_every,
        gradients_every=training.gradients_every,
        max_skipped_steps=training.max_skipped_steps,
        ema_decay=training.ema_decay,
    )
