"""Learning-rate schedules: pure functions of the step, so that a restart continues them exactly.

Nothing here remembers anything: the multiplier of step ``n`` is the same whether the run reached ``n`` in one
go or in five. Only with a time limit does the elapsed time enter, and only ``plateau`` looks at what validations
have found; both are arguments too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from sem.optimization_settings import OptimizationSettings, ScheduleName, require_choice

SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """What the validations of a run have come to.

    Attributes:
        best: lowest loss.
        bad: validations since then, or since the learning rate last fell.
        scale: learning rate over the peak.

    Raises:
        ValueError: a value that no validations come to.
    """

    best: float = math.inf
    bad: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        fits = isinstance(self.best, float) and not math.isnan(self.best) and isinstance(self.scale, float)
        if not fits or type(self.bad) is not int or self.bad < 0 or not 0 < self.scale <= 1:
            raise ValueError(f"plateau: expected a loss, a count and a share of the peak, got {self}")


START = Plateau()
"""Before the first validation."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate and end of a run, from the number of steps done and the seconds spent.

    With ``t`` steps done, ``T = max_steps``, ``W = warmup_steps`` and ``r = min_ratio``, the learning rate over the
    peak is the smaller of the warmup ``(t + 1) / W`` and of

    - ``constant``: 1;
    - ``wsd`` (warmup-stable-decay): 1, and over the last ``decay_steps`` a line down to ``r``;
    - ``cosine``: ``r + (1 - r) (1 + cos(pi (t - W) / (T - W))) / 2`` from the end of the warmup on;
    - ``warmup_cosine``: the same behind a warmup of its own, ``0.1 + 0.9 t / W``;
    - ``exponential``: ``gamma ** (t // interval)``;
    - ``plateau``: times ``plateau_factor`` whenever more than ``plateau_patience`` validations in a row have brought no
      lower loss, down to the learning rate ``plateau_floor``.

    ``t`` of the decay, not of the warmup, is taken at the last multiple of ``interval``, so that an epoch's steps as
    ``interval`` give a schedule per epoch.

    A run that stops by the clock still needs its decay, so with ``max_minutes`` the *progress* that drives
    the decay of ``wsd``, ``cosine`` and ``warmup_cosine`` is the larger of ``t / T`` and ``elapsed / max_minutes``. The
    decay then takes the share ``decay_steps / max_steps`` of whichever limit ends the run. Without ``max_minutes`` time
    plays no part.

    Args:
        peak: largest learning rate.
        kind: one of the six.
        warmup_steps: steps of linear rise; 0 for none.
        max_steps: optimizer steps in all.
        decay_steps: steps of the final fall of ``wsd``; 0 for none.
        min_ratio: last learning rate over the peak, of ``wsd``, ``cosine`` and ``warmup_cosine``.
        max_minutes: wall-clock limit in minutes, or None.
        gamma: factor of ``exponential``.
        interval: steps between changes of the decay.
        plateau_factor, plateau_patience, plateau_floor: of ``plateau``.

    Raises:
        ValueError: there is no such kind.

    Example:
        >>> schedule = Schedule(peak=1.0, kind="wsd", warmup_steps=10, max_steps=100, decay_steps=20)
        >>> [round(schedule.learning_rate(step), 3) for step in (4, 50, 90)]
        [0.5, 1.0, 0.5]
    """

    peak: float
    kind: ScheduleName = "wsd"
    warmup_steps: int = 0
    max_steps: int
    decay_steps: int = 0
    min_ratio: float = 0.0
    max_minutes: float | None = None
    gamma: float = 0.95
    interval: int = 1
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    plateau_floor: float = 0.0

    def __post_init__(self) -> None:
        require_choice("scheduler", self.kind, ScheduleName)

    def progress(self, step: int, elapsed_seconds: float = 0.0) -> float:
        """Share of the run that is behind us, in [0, 1]; ``step`` counts the steps already done."""
        progress = step / self.max_steps
        if self.max_minutes is not None:
            progress = max(progress, elapsed_seconds / (self.max_minutes * SECONDS_PER_MINUTE))
        return min(progress, 1.0)

    def finished(self, step: int, elapsed_seconds: float = 0.0) -> bool:
        """Whether the run is over after ``step`` steps and ``elapsed_seconds`` seconds."""
        return self.progress(step, elapsed_seconds) >= 1.0

    def learning_rate(self, step: int, elapsed_seconds: float = 0.0, plateau: Plateau = START) -> float:
        """Learning rate of the next step when ``step`` steps are done; the first step has ``step=0``.

        Args:
            plateau: what the validations so far have come to.
        """
        step_of_decay = step // self.interval * self.interval
        if self.kind == "constant":
            decay = 1.0
        elif self.kind == "exponential":
            decay = self.gamma ** (step // self.interval)
        elif self.kind == "plateau":
            decay = max(plateau.scale, self._lowest_scale)
        else:
            progress = self.progress(step_of_decay, elapsed_seconds)
            shape = self._wsd(progress) if self.kind == "wsd" else self._cosine(progress)
            decay = self.min_ratio + (1.0 - self.min_ratio) * shape
        return self.peak * min(self._warmup(step), decay)

    def after_validation(self, plateau: Plateau, figures: Mapping[str, float]) -> Plateau:
        """What the validations have come to with one more, of the loss ``val_loss`` among ``figures``; for a schedule
        that does not follow them, what was given.

        Raises:
            ValueError: the schedule follows validations, and there is no such figure.

        Example:
            >>> schedule = Schedule(peak=1.0, kind="plateau", max_steps=100, plateau_patience=0)
            >>> first = schedule.after_validation(START, {"val_loss": 2.0})
            >>> schedule.after_validation(first, {"val_loss": 2.0}).scale
            0.5
        """
        if self.kind != "plateau":
            return plateau
        if "val_loss" not in figures:
            raise ValueError(f"validate: expected 'val_loss', which plateau follows, among its figures {[*figures]}")
        if (loss := figures["val_loss"]) < plateau.best:
            return Plateau(best=loss, scale=plateau.scale)
        if plateau.bad < self.plateau_patience:
            return dataclasses.replace(plateau, bad=plateau.bad + 1)
        lower = max(plateau.scale * self.plateau_factor, self._lowest_scale)
        return Plateau(best=plateau.best, scale=min(plateau.scale, lower))

    def require_validation(self, validated: bool) -> None:
        """Raise ``ValueError`` if the schedule follows validations and the run is not ``validated``."""
        if self.kind == "plateau" and not validated:
            raise ValueError("scheduler = 'plateau': expected a run with validations, which it follows, got none")

    @property
    def _lowest_scale(self) -> float:
        return min(1.0, max(self.plateau_floor / self.peak, _LEAST_SCALE))

    def _warmup(self, step: int) -> float:
        if not self.warmup_steps or step >= self.warmup_steps:
            return 1.0
        return 0.1 + 0.9 * step / self.warmup_steps if self.kind == "warmup_cosine" else (step + 1) / self.warmup_steps

    def _wsd(self, progress: float) -> float:
        decay_share = min(1.0, self.decay_steps / self.max_steps)
        return min(1.0, (1.0 - progress) / decay_share) if decay_share else 1.0

    def _cosine(self, progress: float) -> float:
        warmup_share = min(1.0, self.warmup_steps / self.max_steps)
        if progress <= warmup_share:
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup_share) / (1.0 - warmup_share)))


_LEAST_SCALE = 1e-300  # however long a run, its rate stays above 0


def build_schedule(settings: OptimizationSettings) -> Schedule:
    """The schedule that ``settings`` describe.

    Raises:
        ValueError: there is no such schedule.

    Example:
        >>> build_schedule(OptimizationSettings(scheduler="exponential", learning_rate=1.0)).learning_rate(1)
        0.95
    """
    return Schedule(
        peak=settings.learning_rate,
        kind=settings.scheduler,
        warmup_steps=settings.warmup_steps,
        max_steps=settings.max_steps,
        decay_steps=settings.decay_steps,
        min_ratio=settings.lr_min_ratio,
        max_minutes=settings.max_minutes,
        gamma=settings.lr_gamma,
        interval=settings.lr_interval,
        plateau_factor=settings.plateau_factor,
        plateau_patience=settings.plateau_patience,
        plateau_floor=settings.plateau_floor,
    )
