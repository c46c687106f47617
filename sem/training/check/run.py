"""A short training run that is judged instead of kept: does a configuration stay healthy on this machine?

The run is the real one: the configured model, data, optimizer, schedule and precision, through the same step. What it
adds is a measurement of (nearly) every step, which also recomputes in float64 what the solver says of itself, and a
verdict on the worst of what was seen.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sem.config import SEMConfig
from sem.data.synthetic import synthetic_corpus
from sem.diagnostics import Diagnostics
from sem.precision import autocast_reached, effective_precision, reset_autocast_reached
from sem.training.evaluation import evaluate
from sem.training.health import Criterion, RunRow, finite, wave_criteria
from sem.training.loop import TrainingDiverged, due
from sem.training.progress import ProgressDisplay, Shown
from sem.training.run import build_settings
from sem.training.schedules import build_schedule
from sem.training.trainer import SEMTrainer

HELD_OUT_TARGETS = 4096
"""Held-out targets that the loss is judged on, at least, where there are as many."""
LINES = 20
"""Lines of progress where there is no terminal."""
SHOWN = (
    Shown("tokens_per_second", "tokens/s", ".0f"),
    Shown("loss", "loss", ".4f"),
    Shown("grad_norm", "gradient", ".2e"),
    Shown("unitary_divergence", "divergence", ".2e"),
    Shown("unitarity_deviation", "unitarity", ".1e"),
    Shown("cg_true_residual", "CG residual", ".1e"),
)


def _zero(name: str) -> Criterion:
    return Criterion(name, "0", lambda value: value == 0, limit=0.0)


def _reported(name: str, worst: Any = max) -> Criterion:
    """Shown without being judged."""
    return Criterion(name, "", lambda value: True, worst=worst)


LOSS_FALLS = Criterion("val_loss_change", "falls", lambda value: value < 0)
NON_FINITE = "non_finite_figures"
REPORTED = (
    _reported("cg_iterations_mean"),
    _reported("cg_iterations_max"),
    _reported("cg_unconverged"),
    _reported("phase_entropy_before", min),
    _reported("phase_entropy_after", min),
    _reported("learning_rate"),
    _reported("tokens_per_second", min),
    _reported("peak_memory_mib"),
)


@dataclass(frozen=True)
class CheckResult:
    """What a check saw.

    Attributes:
        rows: one per criterion, judged ones first; ``expected`` is empty in those that are only reported.
        steps: the figures of each step, its number under ``step``.
        criteria: what the steps were judged by.
        asked: steps that were asked for.
        seconds: what the steps took, measurements included.
        interrupted_by: name of the signal that ended the check early, or None.
        diverged: why training stopped by itself, or None.
        precision: each stage's effective precision, in words.
        autocast_reached: how often autocast reached what is pinned to float32, by name.
    """

    rows: list[RunRow]
    steps: list[dict[str, float]]
    criteria: tuple[Criterion, ...]
    asked: int
    seconds: float
    interrupted_by: str | None
    diverged: str | None
    precision: dict[str, str]
    autocast_reached: dict[str, int]

    @property
    def failed(self) -> list[RunRow]:
        """The rows that did not pass."""
        return [row for row in self.rows if not row.passed]


def check_trainer(config: SEMConfig, *, synthetic: bool = False) -> SEMTrainer:
    """A trainer whose measurements are thorough; with ``synthetic``, on generated text, without ``config.data``'s."""
    corpus = synthetic_corpus(config.seq_length, config.data.shuffle_seed) if synthetic else None
    return SEMTrainer(config, corpus=corpus, diagnostics=functools.partial(Diagnostics, thorough=True))


def require_steps(config: SEMConfig, steps: int, every: int = 1) -> None:
    """Raise unless a check of ``steps`` steps, measuring each ``every``-th, is possible.

    Raises:
        ValueError: a number is below 1, or the run is shorter than ``steps``.
    """
    longest = config.training.max_steps
    if not 1 <= steps <= longest:
        raise ValueError(f"--steps {steps}: expected an integer from 1 to training.max_steps = {longest}")
    if every < 1:
        raise ValueError(f"--every {every}: expected an integer >= 1")


def check_health(
    trainer: SEMTrainer, steps: int, every: int = 1, display: ProgressDisplay | None = None
) -> CheckResult:
    """Train for ``steps`` steps, write nothing, and judge the worst of what was seen.

    The learning rate follows the run's own schedule, except that neither the clock nor, with ``plateau``, validations
    have a part in it. Whether the loss falls is judged on held-out batches that are the same before and after: training
    batches differ by more than a few steps of a warmup can gain. SIGINT or SIGTERM ends the check after the current
    step; what was seen until then is judged.

    Args:
        trainer: a new one, as :func:`check_trainer` makes it; its model is trained.
        steps: training steps.
        every: health is measured at the first step and at each ``every``-th; loss and gradient at all.
        display: what the user sees, or None.

    Raises:
        ValueError: see :func:`require_steps`.
    """
    require_steps(trainer.config, steps, every)
    reset_autocast_reached()
    recorder = _Recorder()
    held_out = list(_held_out(trainer))
    before = _score(trainer, held_out)
    schedule = build_schedule(trainer.config.training)
    loop = trainer.build_loop(
        settings=dataclasses.replace(build_settings(trainer.config), health_every=every, log_every=1),
        schedule=dataclasses.replace(
            schedule, max_minutes=None, kind="constant" if schedule.kind == "plateau" else schedule.kind
        ),
        logs=[recorder],
        validate=None,
        display=display,
    )
    interrupted_by = diverged = None
    started = time.monotonic()
    try:
        interrupted_by = loop.run(max_steps=steps)
    except TrainingDiverged as error:
        diverged = str(error)
    finally:
        trainer.train_loader.close()
    seconds = time.monotonic() - started

    after = _score(trainer, held_out)
    criteria = (
        finite("loss"),
        finite("grad_norm"),
        _zero("skipped_steps"),
        *wave_criteria(trainer.config, thorough=True),
    )
    precision = effective_precision(trainer.model, trainer.precision)
    reached = autocast_reached()
    judged = [
        _row(LOSS_FALLS, after - before),
        *(criterion.judge_run(recorder.steps) for criterion in criteria),
        _row(_zero(NON_FINITE), sum(step[NON_FINITE] for step in recorder.steps)),
        _row(_zero("non_finite_parameters"), _non_finite_parameters(trainer.model)),
        _row(_zero("autocast_leaks"), _leaks(trainer.precision.mode, precision, reached)),
    ]
    reported = [criterion.judge_run(recorder.steps) for criterion in REPORTED]
    held_out_row = RunRow("val_loss", "", True, first=before, last=after)
    return CheckResult(
        rows=[*judged, held_out_row, *(row for row in reported if row.worst is not None)],
        steps=recorder.steps,
        criteria=criteria,
        asked=steps,
        seconds=seconds,
        interrupted_by=interrupted_by,
        diverged=diverged,
        precision=precision,
        autocast_reached=reached,
    )


class CheckDisplay(ProgressDisplay):
    """Shows how much of a check is done, where a run's own display counts by its schedule; on a terminal or not."""

    def __init__(self, steps: int) -> None:
        super().__init__(SHOWN)
        self._steps = steps

    def update(
        self, step: int, share: float, seconds_left: float | None, figures: Mapping[str, float], logged: bool
    ) -> None:
        """As :meth:`ProgressDisplay.update`, for ``step`` of the check's own steps; off a terminal about ``LINES``
        lines are printed, however many steps there are."""
        left = figures["elapsed_seconds"] / step * (self._steps - step)
        routine = due(step, math.ceil(self._steps / LINES), first=True)
        super().update(step, step / self._steps, left, figures, routine)


class _Recorder:
    """Keeps the figures of every step, and counts those that are not finite."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        broken = sum(not math.isfinite(value) for name, value in figures.items() if name != "peak_memory_mib")
        self.steps.append({"step": step, **figures, NON_FINITE: broken})

    def close(self) -> None:
        pass


def _held_out(trainer: SEMTrainer) -> Iterator[Mapping[str, Any]]:
    """The first micro-batches of held-out text that have enough targets: at full size, one."""
    targets = 0
    for batch in trainer.validation_loader:
        yield batch
        targets += int((batch["targets"] >= 0).sum())
        if targets >= HELD_OUT_TARGETS:
            return


def _score(trainer: SEMTrainer, batches: list[Mapping[str, Any]]) -> float:
    return evaluate(trainer.model, trainer.objective, batches, autocast=trainer.precision.forward_context)["loss"]


def _row(criterion: Criterion, value: float) -> RunRow:
    """The row of something measured once for the whole run."""
    return RunRow(criterion.name, criterion.expected, criterion.accepts(value), worst=float(value))


def _non_finite_parameters(model: torch.nn.Module) -> int:
    """Entries of parameters and buffers that are NaN or Inf, whether or not the loss has met them."""
    return sum(int((~torch.isfinite(tensor)).sum()) for tensor in model.state_dict().values())


def _leaks(mode: str, precision: Mapping[str, str], reached: Mapping[str, int]) -> int:
    """How often autocast was on where ``mode`` keeps it out: anywhere, or in the stages that are to run outside it."""
    return sum(count for name, count in reached.items() if mode == "32-true" or precision.get(name) == "float32")
