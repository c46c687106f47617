"""Learning-rate schedules: pure functions of the step, so that a restart continues them exactly.

Nothing here remembers anything: the multiplier of step ``n`` is the same whether the run reached ``n`` in one
go or in five. Only with a time limit does the elapsed time enter, and it is an argument too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate and end of a run, from the number of steps done and the seconds spent.

    ``wsd`` (warmup-stable-decay) holds the peak and then falls linearly over the last ``decay_steps``;
    ``cosine`` falls along half a cosine from the end of the warmup to the end of the run. Both rise linearly
    over ``warmup_steps`` and end at ``min_ratio`` of the peak.

    A run that stops by the clock still needs its decay, so with ``max_minutes`` the *progress* that drives
    the decay is the larger of ``step / max_steps`` and ``elapsed / max_minutes``. The decay then takes the
    share ``decay_steps / max_steps`` of whichever limit ends the run. Without ``max_minutes`` time plays no
    part.

    Args:
        peak: largest learning rate.
        kind: ``"wsd"`` or ``"cosine"``.
        warmup_steps: steps of linear rise; 0 for none.
        max_steps: optimizer steps in all.
        decay_steps: steps of the final fall of ``wsd``; 0 for none. ``cosine`` ignores it.
        min_ratio: last learning rate over the peak.
        max_minutes: wall-clock limit in minutes, or None.

    Example:
        >>> schedule = Schedule(peak=1.0, kind="wsd", warmup_steps=10, max_steps=100, decay_steps=20)
        >>> [round(schedule.learning_rate(step), 3) for step in (4, 50, 90)]
        [0.5, 1.0, 0.5]
    """

    peak: float
    kind: Literal["wsd", "cosine"] = "wsd"
    warmup_steps: int = 0
    max_steps: int
    decay_steps: int = 0
    min_ratio: float = 0.0
    max_minutes: float | None = None

    def progress(self, step: int, elapsed_seconds: float = 0.0) -> float:
        """Share of the run that is behind us, in [0, 1]; ``step`` counts the steps already done."""
        progress = step / self.max_steps
        if self.max_minutes is not None:
            progress = max(progress, elapsed_seconds / (self.max_minutes * SECONDS_PER_MINUTE))
        return min(progress, 1.0)

    def finished(self, step: int, elapsed_seconds: float = 0.0) -> bool:
        """Whether the run is over after ``step`` steps and ``elapsed_seconds`` seconds."""
        return self.progress(step, elapsed_seconds) >= 1.0

    def learning_rate(self, step: int, elapsed_seconds: float = 0.0) -> float:
        """Learning rate of the next step when ``step`` steps are done; the first step has ``step=0``."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        progress = self.progress(step, elapsed_seconds)
        shape = self._cosine(progress) if self.kind == "cosine" else self._wsd(progress)
        return self.peak * min(warmup, self.min_ratio + (1.0 - self.min_ratio) * shape)

    def _wsd(self, progress: float) -> float:
        decay_share = min(1.0, self.decay_steps / self.max_steps)
        return min(1.0, (1.0 - progress) / decay_share) if decay_share else 1.0

    def _cosine(self, progress: float) -> float:
        warmup_share = min(1.0, self.warmup_steps / self.max_steps)
        if progress <= warmup_share:
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup_share) / (1.0 - warmup_share)))
