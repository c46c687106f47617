"""A short training run that is judged instead of kept: does a configuration stay healthy on this machine?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sem.training.health import Criterion, HealthRow, finite, judge
from sem.training.loop import TrainingDiverged
from sem.training.trainer import SEMTrainer, build_settings

REPORTED = ("cg_iterations_mean", "cg_iterations_max", "tokens_per_second", "peak_memory_mib")
"""Figures that are shown without being judged."""
NO_SKIPS = Criterion("skipped_steps", "0", lambda value: value == 0)
LOSS_FALLS = Criterion(
    "val_loss", "falls", lambda value: value < 0, ("before", "after"), lambda before, after: after - before
)


class _Recorder:
    """Keeps the figures of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self.steps.append(dict(figures))

    def close(self) -> None:
        pass


def check_health(trainer: SEMTrainer, steps: int) -> list[HealthRow]:
    """Train for ``steps`` steps, measuring each, write nothing, and judge the worst of what was seen.

    The learning rate follows the run's own schedule. Whether the loss falls is judged on held-out batches
    that are the same before and after.

    Args:
        trainer: a new trainer; its model is trained.
        steps: at least 1.

    Returns:
        One row per criterion, health first.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps: expected an integer >= 1, got {steps}")
    recorder = _Recorder()
    settings = dataclasses.replace(build_settings(trainer.config), health_every=1, log_every=1)
    before = trainer.validate()["val_loss"]
    loop = trainer.build_loop(settings=settings, logs=[recorder], validate=None)
    try:
        loop.run(max_steps=steps)
    except TrainingDiverged:
        after = float("nan")
    else:
        after = trainer.validate()["val_loss"]
    last = recorder.steps[-1]
    criteria = (*loop.criteria, finite("loss"), finite("grad_norm"), NO_SKIPS)
    return [
        *_worst(criteria, recorder.steps),
        LOSS_FALLS.judge({"before": before, "after": after}),
        *(HealthRow(name, last[name], "", True) for name in REPORTED if name in last),
    ]


def _worst(criteria: Sequence[Criterion], steps: Sequence[Mapping[str, float]]) -> list[HealthRow]:
    """Each criterion's first failing row, or its last one where none fails."""
    by_step = [judge(criteria, figures) for figures in steps]
    return [next((row for row in rows if not row.passed), rows[-1]) for rows in zip(*by_step, strict=True)]
