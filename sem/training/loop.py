"""The training loop, readable from top to bottom; it knows nothing of what is trained.

Everything needed to continue a run bit for bit is in one checkpoint: parameters, optimizer state, steps and
seconds done, the position in the data and the state of the random generators.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import nn

from sem.training.checkpoint import CheckpointStore
from sem.training.health import Criterion, failures, judge
from sem.training.logging import MetricLog
from sem.training.memory import peak_memory_mib
from sem.training.optim import set_learning_rate
from sem.training.progress import ProgressDisplay
from sem.training.schedules import Schedule
from sem.training.signals import stop_on_signals
from sem.training.step import Objective, StepResult, training_step

CHECKPOINT_FORMAT = 1


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


class Batches(Protocol):
    """An endless source of micro-batches whose position can be saved and restored."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class LoopState:
    """Where a run stands.

    Attributes:
        step: steps done, skipped ones included.
        elapsed_seconds: wall-clock time spent, over all restarts.
        skipped_steps: steps without an update, in all.
        skipped_in_row: steps without an update since the last one with.
    """

    step: int = 0
    elapsed_seconds: float = 0.0
    skipped_steps: int = 0
    skipped_in_row: int = 0


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How often the loop does what; all counts are in steps.

    Attributes:
        accumulation: micro-batches per step.
        gradient_clip: largest gradient norm, 0 for none.
        max_skipped_steps: non-finite steps in a row that end the run.
    """

    accumulation: int = 1
    gradient_clip: float = 0.0
    log_every: int = 10
    eval_every: int = 500
    checkpoint_every: int = 1000
    health_every: int = 50
    max_skipped_steps: int = 5


@dataclass(kw_only=True)
class TrainingLoop:
    """Trains ``model`` on ``batches`` until ``schedule`` says that the run is over.

    Args:
        model: module in training mode, on its device.
        objective: loss and figures of a micro-batch.
        optimizer: its groups may carry ``lr_scale``.
        schedule: learning rate and end of the run.
        batches: endless micro-batches.
        settings: intervals and limits.
        validate: figures on held-out data, or None.
        diagnostics: makes a fresh recorder (an object with ``summary() -> dict[str, float]``) for each health
            measurement, or None for no measurement.
        criteria: what a healthy measurement looks like; departures are reported when they begin.
        store: where checkpoints go; None writes none.
        extra: what else to put in each checkpoint, such as the configuration.
        logs: where figures go.
        display: what the user sees, or None.
        autocast: makes the context of each forward pass.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    batches: Batches
    settings: LoopSettings = LoopSettings()
    validate: Callable[[], dict[str, float]] | None = None
    diagnostics: Callable[[], Any] | None = None
    criteria: Sequence[Criterion] = ()
    store: CheckpointStore | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    logs: Iterable[MetricLog] = ()
    display: ProgressDisplay | None = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __post_init__(self) -> None:
        self.state = LoopState()
        self.figures: dict[str, float] = {}
        self._unhealthy: set[str] = set()
        self._saved_step: int | None = None

    def run(self, max_steps: int | None = None) -> str | None:
        """Train to the end of the schedule, or for ``max_steps`` more steps.

        SIGINT or SIGTERM ends the run after the current step with a checkpoint.

        Returns:
            The signal's name if one ended the run, else None.

        Raises:
            TrainingDiverged: see ``settings.max_skipped_steps``; no checkpoint is written then.
            CheckpointError: a checkpoint could not be written.
        """
        last_step = None if max_steps is None else self.state.step + max_steps
        self._begin_clock()
        source = iter(self.batches)
        with self.display or nullcontext(), stop_on_signals() as stop:
            while not self._finished(last_step) and not stop:
                self._train_one_step(source, last_step)
            if self.store is not None and self._saved_step != self.state.step:
                self.save()
        return stop.signal_name

    def _train_one_step(self, source: Iterator[Any], last_step: int | None) -> None:
        started = time.monotonic()
        state, settings = self.state, self.settings
        learning_rate = self.schedule.learning_rate(state.step, state.elapsed_seconds)
        set_learning_rate(self.optimizer, learning_rate)
        recorder = None
        if self.diagnostics is not None and due(state.step + 1, settings.health_every, first=True):
            recorder = self.diagnostics()
        result = training_step(
            self.model,
            self.objective,
            list(islice(source, settings.accumulation)),
            self.optimizer,
            gradient_clip=settings.gradient_clip,
            diagnostics=recorder,
            autocast=self.autocast,
        )
        state.step += 1
        self._count_skipped(result)
        self._tick(result, started)

        figures = self._step_figures(result, learning_rate)
        if recorder is not None:
            figures |= recorder.summary()
            self._watch_health(figures)
        finished = self._finished(last_step)
        evaluated = due(state.step, settings.eval_every) or finished
        if self.validate is not None and evaluated:
            figures |= self.validate()
        routine = due(state.step, settings.log_every, first=True)
        self._publish(figures, routine or evaluated or recorder is not None or result.skipped)

        if state.skipped_in_row >= settings.max_skipped_steps:
            raise TrainingDiverged(self._divergence_message(result))
        if self.store is not None and due(state.step, settings.checkpoint_every) and not result.skipped:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        if self.store is None:
            raise ValueError("store: expected a CheckpointStore to save to, got None")
        self.store.save(self.state.step, self.state_dict())
        self._saved_step = self.state.step

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue, as tensors and plain values."""
        return {
            **self.extra,
            "format": CHECKPOINT_FORMAT,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loop": dataclasses.asdict(self.state),
            "batches": self.batches.state_dict(),
            "random": random_state(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            ValueError: the content is of another format, or of another model or optimizer.
        """
        if content.get("format") != CHECKPOINT_FORMAT:
            received = content.get("format")
            raise ValueError(f"checkpoint: expected format {CHECKPOINT_FORMAT}, got {received!r}")
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"checkpoint: it does not fit the configured model: {error}") from error
        self.batches.load_state_dict(content["batches"])
        self.state = LoopState(**content["loop"])
        self._saved_step = self.state.step
        restore_random_state(content["random"])

    def _finished(self, last_step: int | None) -> bool:
        reached = last_step is not None and self.state.step >= last_step
        return reached or self.schedule.finished(self.state.step, self.state.elapsed_seconds)

    def _begin_clock(self) -> None:
        self._clock_origin = time.monotonic() - self.state.elapsed_seconds
        self._window_items = self._window_seconds = 0.0
        self._first_progress = self.schedule.progress(self.state.step, self.state.elapsed_seconds)
        self._first_elapsed = self.state.elapsed_seconds

    def _tick(self, result: StepResult, started: float) -> None:
        now = time.monotonic()
        self.state.elapsed_seconds = now - self._clock_origin
        self._window_items += result.totals.get("items_sum", 0.0)
        self._window_seconds += now - started

    def _count_skipped(self, result: StepResult) -> None:
        self.state.skipped_in_row = self.state.skipped_in_row + 1 if result.skipped else 0
        self.state.skipped_steps += result.skipped
        if result.skipped:
            self._say(f"step {self.state.step}: skipped, {result.problem}")

    def _step_figures(self, result: StepResult, learning_rate: float) -> dict[str, float]:
        figures = dict(self.objective.report(result.totals))
        figures["grad_norm"] = result.grad_norm
        figures["learning_rate"] = learning_rate
        figures["skipped_steps"] = float(self.state.skipped_steps)
        figures["elapsed_seconds"] = self.state.elapsed_seconds
        if self._window_items:
            figures[f"{self.objective.unit}_per_second"] = self._window_items / self._window_seconds
        return figures

    def _watch_health(self, figures: dict[str, float]) -> None:
        failed = [row for row in failures(judge(self.criteria, figures)) if row.value is not None]
        for row in failed:
            if row.name not in self._unhealthy:
                self._say(f"step {self.state.step}: {row.name} is {row.text}, expected: {row.expected}")
        self._unhealthy = {row.name for row in failed}

    def _publish(self, figures: dict[str, float], logged: bool) -> None:
        if logged:
            figures["peak_memory_mib"] = peak_memory_mib()
            for log in self.logs:
                log.write(self.state.step, figures)
            self._window_items = self._window_seconds = 0.0
        self.figures.update(figures)
        if self.display is not None:
            progress = self.schedule.progress(self.state.step, self.state.elapsed_seconds)
            gained = progress - self._first_progress
            spent = self.state.elapsed_seconds - self._first_elapsed
            left = spent * (1.0 - progress) / gained if gained > 0 else None
            self.display.update(self.state.step, progress, left, figures, logged)

    def _divergence_message(self, result: StepResult) -> str:
        kept = self.store.paths() if self.store is not None else []
        state = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        count = self.state.skipped_in_row
        return f"stopped at step {self.state.step}: {count} steps in a row failed ({result.problem}); {state}"

    def _say(self, text: str) -> None:
        if self.display is not None:
            self.display.message(text)


def due(step: int, every: int, first: bool = False) -> bool:
    """Whether what happens every so many steps, and perhaps at the first one, happens at ``step``."""
    return step % every == 0 or (first and step == 1)


def random_state() -> dict[str, Any]:
    """The state of torch's generators, on the CPU and on every device in use."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    for name in ("cuda", "xpu"):
        backend = getattr(torch, name)
        if backend.is_available():
            state[name] = backend.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo what was drawn since :func:`random_state`; devices that are not here any more are left out."""
    torch.set_rng_state(state["cpu"])
    for name in ("cuda", "xpu"):
        backend = getattr(torch, name)
        if name in state and backend.is_available() and backend.device_count() == len(state[name]):
            backend.set_rng_state_all(state[name])
