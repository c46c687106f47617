"""The training loop, readable from top to bottom; it knows nothing of what is trained.

Everything needed to continue a run bit for bit is in one checkpoint: parameters, optimizer state, steps and
seconds done, the position in the data and the state of the random generators.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sem.activations import layer_parameters
from sem.signals import StopRequest, stop_on_signals
from sem.training.averages import ENTRY, PREFIX, Averages
from sem.training.checkpoint import CheckpointStore, load_parameters
from sem.training.clipping import NO_CLIPPING, Clipping
from sem.training.distributed import ALONE, OneProcess, merge_states
from sem.training.health import Criterion, HealthWatch
from sem.training.logging import MetricLog
from sem.training.memory import peak_memory_mib
from sem.training.optim import load_optimizer_state, set_learning_rate
from sem.training.progress import ProgressDisplay
from sem.training.random_state import random_state, restore_random_state
from sem.training.schedules import START, Plateau, Schedule
from sem.training.step import Objective, Stateful, StepResult, training_step
from sem.training.thread_count import AdaptiveThreads

CHECKPOINT_FORMAT = 1


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


class Batches(Protocol):
    """An endless source of micro-batches whose position can be saved and restored.

    Of several processes each gives its own share; a checkpoint holds their states joined by
    :func:`~sem.training.distributed.merge_states`.
    """

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]:
        """Where the source stands: the micro-batches handed out so far do not come again."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state belongs to other data.
        """


@dataclass
class LoopState:
    """Where a run stands.

    Attributes:
        step: steps done, skipped ones included.
        elapsed_seconds: wall-clock time spent, over all restarts.
        skipped_steps: steps without an update, in all.
        skipped_in_row: steps without an update since the last one with.
        plateau: what the validations have come to, for a schedule that follows them.
    """

    step: int = 0
    elapsed_seconds: float = 0.0
    skipped_steps: int = 0
    skipped_in_row: int = 0
    plateau: Plateau = START

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoopState:
        """What ``dataclasses.asdict`` made of a state; earlier versions knew no plateau."""
        return cls(**{**values, "plateau": Plateau(**values.get("plateau", {}))})


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How often the loop does what; all counts are in steps.

    Attributes:
        accumulation: micro-batches per step.
        clipping: bounds the gradient.
        gradients_every: steps between statistics of every layer's gradient; None: never.
        max_skipped_steps: non-finite steps in a row that end the run.
        ema_decay: of the averages of the parameters (:class:`~sem.training.averages.Averages`); 0 keeps none.
    """

    accumulation: int = 1
    clipping: Clipping = NO_CLIPPING
    log_every: int = 10
    eval_every: int = 500
    checkpoint_every: int = 1000
    health_every: int = 50
    gradients_every: int | None = None
    max_skipped_steps: int = 5
    ema_decay: float = 0.0


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
        backward: differentiates a loss.
        threads: chooses the CPU threads of each step by the time of those before it; None leaves them alone.
        ranks: the processes that train together. All of them run the same loop; the first alone writes and shows.
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
    backward: Callable[[Tensor], Any] = Tensor.backward
    threads: AdaptiveThreads | None = None
    ranks: OneProcess = ALONE

    def __post_init__(self) -> None:
        self.state = LoopState()
        self.figures: dict[str, float] = {}
        self.measured = False
        self._problem: str | None = None
        self._health = HealthWatch(self.criteria)
        self._saved_step: int | None = None
        decay = self.settings.ema_decay
        self.averages = Averages(self.model, decay) if decay else None
        self._parallel = self.ranks.wrap(self.model)
        self.stop = StopRequest()
        self._stop_agreed = False

    def run(self, max_steps: int | None = None) -> str | None:
        """Train to the end of the schedule, or for ``max_steps`` more steps.

        SIGINT or SIGTERM ends the run after the current step with a checkpoint; where several processes train, one that
        any of them received ends all at the same step.

        Returns:
            The signal's name if one ended the run, else None.

        Raises:
            TrainingDiverged: see ``settings.max_skipped_steps``; no checkpoint is written then.
            CheckpointError: a checkpoint could not be written.
            ProcessLost: another process ended or fell silent.
            ValueError: the schedule follows validations, and there are none.
        """
        self.schedule.require_validation(self.validate is not None)
        last_step = None if max_steps is None else self.state.step + max_steps
        self.begin()
        source = iter(self.batches)
        with self.ranks.guard(), self.display or nullcontext(), stop_on_signals() as self.stop:
            self.check_common_start()
            while not self._finished(last_step) and not self.stopping:
                self._train_one_step(source, last_step)
            if self.store is not None and not self.saved:
                self.save()
            return self.signal_name()

    def _train_one_step(self, source: Iterator[Any], last_step: int | None) -> None:
        figures = self.advance(list(islice(source, self.settings.accumulation)))
        for departure in self.departures(figures):
            self._say(departure)
        self.report(figures, finished=self._finished(last_step))
        self.check_divergence()
        if self.store is not None and self.checkpoint_due:
            self.save()

    def advance(self, micro_batches: Sequence[Any]) -> dict[str, float]:
        """Take one step, measured if a measurement is due, and count it; returns its figures.

        This is what any driver of a training calls; :meth:`run` is one.
        """
        started = time.monotonic()
        state, settings = self.state, self.settings
        learning_rate = self.schedule.learning_rate(state.step, state.elapsed_seconds, state.plateau)
        set_learning_rate(self.optimizer, learning_rate)
        recorder = None
        if self.diagnostics is not None and due(state.step + 1, settings.health_every, first=True):
            recorder = self.diagnostics()
        result = training_step(
            self._parallel,
            self.objective,
            micro_batches,
            self.optimizer,
            clipping=settings.clipping,
            diagnostics=recorder,
            autocast=self.autocast,
            backward=self.backward,
            accumulating=partial(self.ranks.accumulating, self._parallel),
            fetch=self._fetch,
            groups=self._layers if self._gradients_due(state.step + 1) else None,
        )
        state.step += 1
        self._count_skipped(result)
        if self.averages is not None and not result.skipped:
            self.averages.update()
        self.measured = recorder is not None
        self._count_speed(result, started)

        figures = self._step_figures(result, learning_rate)
        return figures | recorder.summary() if recorder is not None else figures

    @property
    def skipped(self) -> bool:
        """Whether the last step left the parameters as they were."""
        return self.state.skipped_in_row > 0

    @cached_property
    def _layers(self) -> dict[str, list[nn.Parameter]]:
        return layer_parameters(self.model)

    def _gradients_due(self, step: int) -> bool:
        """Whether statistics of the layers' gradients belong to this step."""
        every = self.settings.gradients_every
        return every is not None and due(step, every, first=True)

    @property
    def _noteworthy(self) -> bool:
        """Whether the last step's figures are to be logged even if nothing was validated."""
        step = self.state.step
        wanted = due(step, self.settings.log_every, first=True) or self._gradients_due(step)
        return wanted or self.measured or self.skipped

    @property
    def saved(self) -> bool:
        """Whether there is a checkpoint of this very step."""
        return self._saved_step == self.state.step

    @property
    def checkpoint_due(self) -> bool:
        """Whether the last step is one after which a checkpoint is written."""
        return due(self.state.step, self.settings.checkpoint_every) and not self.skipped

    @property
    def finished(self) -> bool:
        """Whether the schedule is over."""
        return self.schedule.finished(self.state.step, self.state.elapsed_seconds)

    def check_divergence(self) -> None:
        """Raise :class:`TrainingDiverged` if too many steps in a row were skipped."""
        if self.state.skipped_in_row >= self.settings.max_skipped_steps:
            raise TrainingDiverged(self._divergence_message())

    def departures(self, figures: Mapping[str, float]) -> list[str]:
        """One sentence for each quantity that the last step found outside its healthy range for the first time, in any
        process: the figures are those of the first one's rows."""
        if not self.measured:
            return []
        found = self.ranks.gather(self._health.departures(figures))
        several = self.ranks.world_size > 1
        return [
            f"step {self.state.step}: {f'rank {rank}: ' if several else ''}{departure}"
            for rank, departures in enumerate(found)
            for departure in departures
        ]

    def report(self, figures: dict[str, float], *, finished: bool) -> None:
        """Log and show the last step's ``figures``, held-out ones among them where they are due or the run is over."""
        evaluated = due(self.state.step, self.settings.eval_every) or finished
        if self.validate is not None and evaluated:
            found = self.validate()
            figures |= found | self.of_averages(self.validate)
            if due(self.state.step, self.settings.eval_every):  # not where a run happens to end
                self.observe(found)
        logged = evaluated or self._noteworthy
        if logged:
            figures["peak_memory_mib"] = peak_memory_mib()
            for log in self.logs:
                log.write(self.state.step, figures)
            self._restart_throughput()
        self.figures.update(figures)
        if self.display is not None:
            self.display.update(self.state.step, *self._progress(), figures, logged)

    def of_averages(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What ``validate`` finds of the averaged parameters, named ``ema_...``; nothing where none are kept."""
        if self.averages is None or not self.averages.updates:
            return {}
        with self.averages.applied():
            return {f"{PREFIX}{name}": value for name, value in validate().items()}

    def observe(self, figures: Mapping[str, float]) -> None:
        """Let the schedule know what a validation has found; see :meth:`Schedule.after_validation`."""
        before = self.state.plateau
        self.state.plateau = after = self.schedule.after_validation(before, figures)
        if after.scale < before.scale:
            rate = self.schedule.peak * after.scale
            self._say(f"step {self.state.step}: no loss below {after.best:.4g}, the learning rate falls to {rate:.3g}")

    def save(self) -> None:
        """Write a checkpoint of this moment; every process calls this, the first one writes.

        Raises:
            ValueError: there is no ``store``.
            CheckpointError: the checkpoint could not be written; all processes raise it.
        """
        if self.store is None:
            raise ValueError("store: expected a CheckpointStore to save to, got None")
        content = self.state_dict()
        self.ranks.first(partial(self.store.save, self.state.step, content))
        self._saved_step = self.state.step

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue, as tensors and plain values; every process calls this, all get the same."""
        shares = self.ranks.gather((self.batches.state_dict(), random_state()))
        random, *random_of_others = [state for _, state in shares]
        averages = {} if self.averages is None else {ENTRY: self.averages.state_dict()}
        objective = {"objective": self.objective.state_dict()} if isinstance(self.objective, Stateful) else {}
        return {
            **self.extra,
            "format": CHECKPOINT_FORMAT,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loop": dataclasses.asdict(self.state),
            "batches": merge_states([state for state, _ in shares]),
            "random": random,
            "random_of_other_ranks": random_of_others,
            **averages,
            **objective,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, in a run of the same or another number of processes.

        Averages that are wanted and not there begin here; those that are there and not wanted are dropped.

        Raises:
            ValueError: the content is of another format, or of another model or optimizer.
        """
        if content.get("format") != CHECKPOINT_FORMAT:
            received = content.get("format")
            raise ValueError(f"checkpoint: expected format {CHECKPOINT_FORMAT}, got {received!r}")
        if isinstance(self.objective, Stateful) and "objective" in content:
            self.objective.load_state_dict(content["objective"])
        try:
            load_parameters(self.model, content)
            load_optimizer_state(self.optimizer, content["optimizer"])
            if self.averages is not None and ENTRY in content:
                self.averages.load_state_dict(content[ENTRY])
        except ValueError as error:
            raise ValueError(f"checkpoint: it does not fit the configured model: {error}") from error
        self.batches.load_state_dict(content["batches"])
        self.state = LoopState.from_dict(content["loop"])
        self._saved_step = self.state.step
        known = [content["random"], *content.get("random_of_other_ranks", ())]
        if self.ranks.rank < len(known):
            restore_random_state(known[self.ranks.rank])

    def signal_name(self) -> str | None:
        """The signal that asked one of the processes to stop, if any did; every process calls this."""
        return next(filter(None, self.ranks.gather(self.stop.signal_name)), None)

    def check_common_start(self) -> None:
        """Raise ``ValueError`` if not all processes stand at the same step."""
        steps = self.ranks.gather(self.state.step)
        if len(set(steps)) > 1:
            found = ", ".join(f"rank {rank} after step {step}" for rank, step in enumerate(steps))
            raise ValueError(f"resume: expected all processes to find the same checkpoint, they continue {found}")

    @property
    def stopping(self) -> bool:
        """Whether to stop now: a single process obeys at once, several obey what all of them have heard."""
        return self._stop_agreed if self.ranks.world_size > 1 else bool(self.stop)

    def _finished(self, last_step: int | None) -> bool:
        reached = last_step is not None and self.state.step >= last_step
        return reached or self.finished

    def begin(self) -> None:
        """Start the clock; once before the first :meth:`advance`."""
        self._clock_origin = time.monotonic() - self.state.elapsed_seconds
        self._restart_throughput()
        self._first_progress = self.schedule.progress(self.state.step, self.state.elapsed_seconds)
        self._first_elapsed = self.state.elapsed_seconds

    def _fetch(self, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Figures over all processes. With them travel the first one's clock, which counts for all, and the wish of any
        of them to stop."""
        clock = time.monotonic() - self._clock_origin if self.ranks.is_first else 0.0
        own = {"clock_sum": clock, "stops_sum": float(bool(self.stop))}
        totals = self.ranks.fetch({**figures, **own})
        self.state.elapsed_seconds = totals.pop("clock_sum")
        self._stop_agreed = totals.pop("stops_sum") > 0
        return totals

    def _count_speed(self, result: StepResult, started: float) -> None:
        items, seconds = result.totals.get("items_sum", 0.0), time.monotonic() - started
        self._window_items += items
        self._window_seconds += seconds
        if self.threads is not None and not self.measured:
            self.threads.after_step(seconds / (items or 1.0))

    def _count_skipped(self, result: StepResult) -> None:
        self.state.skipped_in_row = self.state.skipped_in_row + 1 if result.skipped else 0
        self.state.skipped_steps += result.skipped
        self._problem = result.problem
        if result.skipped:
            self._say(f"step {self.state.step}: skipped, {result.problem}")

    def _step_figures(self, result: StepResult, learning_rate: float) -> dict[str, float]:
        figures = dict(self.objective.report(result.totals))
        figures |= {"grad_norm": result.grad_norm, **result.clipped, **result.gradients}
        figures["learning_rate"] = learning_rate
        figures["skipped_steps"] = float(self.state.skipped_steps)
        figures["elapsed_seconds"] = self.state.elapsed_seconds
        if self._window_items:
            figures[f"{self.objective.unit}_per_second"] = self._window_items / self._window_seconds
        return figures

    def _progress(self) -> tuple[float, float | None]:
        """The share of the run that is done, and an estimate of the seconds left (None: nothing to go by)."""
        share = self.schedule.progress(self.state.step, self.state.elapsed_seconds)
        gained = share - self._first_progress
        spent = self.state.elapsed_seconds - self._first_elapsed
        return share, spent * (1.0 - share) / gained if gained > 0 else None

    def _restart_throughput(self) -> None:
        self._window_items = self._window_seconds = 0.0

    def _divergence_message(self) -> str:
        kept = self.store.paths() if self.store is not None else []
        state = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        count = self.state.skipped_in_row
        return f"stopped at step {self.state.step}: {count} steps in a row failed ({self._problem}); {state}"

    def _say(self, text: str) -> None:
        if self.display is not None:
            self.display.message(text)


def due(step: int, every: int, first: bool = False) -> bool:
    """Whether what happens every so many steps, and perhaps at the first one, happens at ``step``."""
    return step % every == 0 or (first and step == 1)
