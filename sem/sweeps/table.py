"""One row per arm: medians and ranges over the seeds; whether the budgets were equal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sem.sweeps.experiment import Budget, Experiment
from sem.sweeps.results import RunResult

TOLERANCE = 0.10
"""How far apart arms may be in what the budget does not fix."""
_FIXED_TOLERANCE = 0.01


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Of those that are there, NaN above all others; None where none is.

        Example:
            >>> str(Spread.of([1.0, None, 3.0, 2.0]))
            '2 (1 to 3)'
        """
        known = sorted((value for value in values if value is not None), key=lambda value: (math.isnan(value), value))
        if not known:
            return None
        middle = known[(len(known) - 1) // 2], known[len(known) // 2]
        return cls(sum(middle) / 2, known[0], known[-1])

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.median:.5g}"
        return f"{self.median:.5g} ({self.low:.5g} to {self.high:.5g})"

    def to_mapping(self) -> dict[str, float]:
        """``median``, ``min`` and ``max``, for JSON."""
        return {"median": self.median, "min": self.low, "max": self.high}


@dataclass(frozen=True)
class ArmRow:
    """An arm's row; spreads are over its finished runs.

    Attributes:
        arm: the arm's name.
        planned: number of its runs.
        finished: number of those that are done.
        collapsed: number of those that have collapsed; None where it is not judged.
    """

    arm: str
    planned: int
    finished: int
    steps: Spread | None
    best_validation: Spread | None
    final_validation: Spread | None
    figures: Mapping[str, Spread | None]
    collapsed: int | None
    gradient_norm: Spread | None
    learning_rate: Spread | None
    seconds: Spread | None


def arm_row(runs: Sequence[RunResult], experiment: Experiment) -> ArmRow:
    """The row of one arm's runs."""
    done = [run for run in runs if run.state == "finished"]
    return ArmRow(
        runs[0].arm,
        len(runs),
        len(done),
        Spread.of(run.steps for run in done),
        Spread.of(run.best_validation for run in done),
        Spread.of(run.final_validation for run in done),
        {figure.name: Spread.of(run.figures[figure.name] for run in done) for figure in experiment.figures},
        None if experiment.collapsed is None else sum(bool(run.collapsed) for run in done),
        Spread.of(run.gradient_norm for run in done),
        Spread.of(run.learning_rate for run in done),
        Spread.of(run.seconds for run in done),
    )


def floors(results: Iterable[RunResult], experiment: Experiment) -> dict[str, Spread | None]:
    """The floor of each figure that has one, over all finished runs."""
    done = [run for run in results if run.state == "finished"]
    known = {figure.name: figure.floor for figure in experiment.figures if figure.floor is not None}
    return {name: Spread.of(run.figures[floor] for run in done) for name, floor in known.items()}


def budget_warnings(rows: Sequence[ArmRow], budget: Budget) -> list[str]:
    """One sentence where the arms did not spend the same: of what the budget fixes, and of what it does not.

    Example:
        >>> def row(arm, steps, seconds):
        ...     spent = Spread.of([steps]), Spread.of([seconds])
        ...     return ArmRow(arm, 1, 1, spent[0], None, None, {}, None, None, None, spent[1])
        >>> budget_warnings([row("a", 100, 60.0), row("b", 100, 90.0)], Budget(steps=100))
        ['equal steps, not equal seconds: a median of 60 for a, 90 for b, which is 50 % more']
    """
    warnings = []
    fixed, other = ("seconds", "steps") if budget.by_time else ("steps", "seconds")
    for quantity, tolerance in ((fixed, _FIXED_TOLERANCE), (other, TOLERANCE)):
        spent: dict[str, float] = {}
        for row in rows:
            spread: Spread | None = getattr(row, quantity)
            if spread is not None:
                spent[row.arm] = spread.median
        if not spent:
            continue
        least, most = min(spent, key=spent.__getitem__), max(spent, key=spent.__getitem__)
        more = spent[most] / spent[least] - 1 if spent[least] > 0 else 0.0
        if more > tolerance:
            start = f"equal {fixed}, not equal {other}" if quantity == other else f"not equal {fixed}"
            warnings.append(
                f"{start}: a median of {spent[least]:.4g} for {least}, {spent[most]:.4g} for {most}, "
                f"which is {100 * more:.0f} % more"
            )
    return warnings


def markdown_table(rows: Sequence[ArmRow], experiment: Experiment, floor: Mapping[str, Spread | None]) -> str:
    """The table in Markdown, with a last row of floors where there are any."""
    judged = experiment.collapsed is not None
    heads = ["arm", "runs", "steps", "best validation loss", "final validation loss"]
    heads += [f"{figure.label} ({figure.better} is better)" for figure in experiment.figures]
    heads += ["collapsed"] * judged + ["gradient norm", "last learning rate", "seconds"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        cells: list[Any] = [row.arm, f"{row.finished}/{row.planned}", row.steps]
        cells += [row.best_validation, row.final_validation, *row.figures.values()]
        cells += [f"{row.collapsed}/{row.finished}"] * judged + [row.gradient_norm, row.learning_rate, row.seconds]
        lines.append(["–" if cell is None else str(cell) for cell in cells])
    if floor:
        cells = ["*floor*", "", "", "", ""]
        cells += [str(floor[figure.name] or "–") if figure.name in floor else "" for figure in experiment.figures]
        lines.append(cells + [""] * (judged + 3))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
