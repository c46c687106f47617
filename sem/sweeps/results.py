"""What a run left in its folder, read without trust."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sem.settings import shorten
from sem.sweeps.experiment import Experiment, Run
from sem.sweeps.record import Record, State

FINAL, HISTORY = "final.json", "metrics.csv"
_LONGEST_FINAL = 1 << 20
_TAIL_BYTES = 1 << 14

Curve = tuple[tuple[float, float], ...]
"""Steps and values, in order."""


@dataclass(frozen=True)
class RunResult:
    """A run's outcome so far.

    Attributes:
        arm: its arm's name.
        seed: its seed.
        state: where it stands.
        figures: those of a finished run, by name, floors among them.
        collapsed: whether the model has collapsed, of a finished run that says so.
        loss: the training loss over the steps.
        validation: the validation loss over the steps.
        steps: last step in the table of metrics.
        seconds: spent on training, or where the table does not say, by its processes.
        gradient_norm: median over the table, of finite ones.
        learning_rate: last one in the table.
        threads: OpenMP threads that it had.
        reason: why it failed.
        log: last lines of the log of one that failed.
    """

    arm: str
    seed: int
    state: State
    figures: Mapping[str, float] = field(default_factory=dict)
    collapsed: bool | None = None
    loss: Curve = ()
    validation: Curve = ()
    steps: int | None = None
    seconds: float | None = None
    gradient_norm: float | None = None
    learning_rate: float | None = None
    threads: int = 1
    reason: str = ""
    log: tuple[str, ...] = ()

    @property
    def best_validation(self) -> float | None:
        """The lowest validation loss that is a number; None without one."""
        return min((value for _, value in self.validation if not math.isnan(value)), default=None)

    @property
    def final_validation(self) -> float | None:
        """The last validation loss; None without one."""
        return self.validation[-1][1] if self.validation else None


def read_result(run: Run, record: Record, experiment: Experiment) -> RunResult:
    """The outcome of ``run``; what cannot be read is left out, and of a finished run is its ``reason``."""
    known: dict[str, Any] = {"state": record.state, "threads": record.threads, "reason": record.reason}
    figures: dict[str, float] = {}
    collapsed = None
    try:
        history = read_history(run.folder / HISTORY)
        if record.state == "finished":
            figures, collapsed = read_final(run.folder / FINAL, experiment)
    except ValueError as error:
        history = {}
        known |= {"state": "failed", "reason": str(error)} if record.state == "finished" else {}
    norms = [value for _, value in history.get(experiment.gradient_norm, ()) if math.isfinite(value)]
    rates = history.get(experiment.learning_rate, ())
    seconds = history.get(experiment.seconds, ())
    return RunResult(
        run.arm.name,
        run.seed,
        **known,
        figures=figures,
        collapsed=collapsed,
        loss=history.get(experiment.loss, ()),
        validation=history.get(experiment.validation, ()),
        steps=int(max((step for curve in history.values() for step, _ in curve), default=0)) or None,
        seconds=seconds[-1][1] if seconds else record.seconds or None,
        gradient_norm=statistics.median(norms) if norms else None,
        learning_rate=rates[-1][1] if rates else None,
        log=record.log,
    )


def read_final(path: Path, experiment: Experiment) -> tuple[dict[str, float], bool | None]:
    """The figures and floors in ``final.json``, and whether the model has collapsed.

    Raises:
        ValueError: the file is missing, damaged or lacks one of the figures.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.loads(file.read(_LONGEST_FINAL))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected figures in JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of figures, got {shorten(content)}")
    names = [figure.name for figure in experiment.figures]
    names += [figure.floor for figure in experiment.figures if figure.floor is not None]
    for name in names:
        value = content.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{path}: expected a number {name}, got {shorten(value)}")
    collapsed = None if experiment.collapsed is None else content.get(experiment.collapsed)
    if experiment.collapsed is not None and not isinstance(collapsed, bool):
        raise ValueError(f"{path}: expected true or false as {experiment.collapsed}, got {shorten(collapsed)}")
    return {name: _number(content[name]) for name in names}, collapsed


def read_history(path: Path) -> dict[str, Curve]:
    """Each column of a table of metrics over the steps, cells that are empty left out; a table that is not there has no
    columns. A last row that is being written is left out.

    Raises:
        ValueError: it is no table with a column ``step`` and numbers.

    Example:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> _ = table.write_text("step,loss,val_loss\\n1,3.5,\\n2,2.5,2.75\\n3,2.")
        >>> read_history(table)
        {'loss': ((1.0, 3.5), (2.0, 2.5)), 'val_loss': ((2.0, 2.75),)}
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a table of metrics ({error})") from None
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    columns: dict[str, list[tuple[float, float]]] = {}
    try:
        for row in csv.DictReader(lines):
            step = float(row["step"])
            for name, cell in row.items():
                if name != "step" and cell:
                    columns.setdefault(name, []).append((step, float(cell)))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: expected a table of metrics with a column step and numbers ({error})") from None
    return {name: tuple(curve) for name, curve in columns.items()}


def last_row(path: Path) -> dict[str, float]:
    """The last complete row of a table that may be growing; empty where there is none to read."""
    try:
        with open(path, "rb") as file:
            header = file.readline().decode().strip().split(",")
            size = os.fstat(file.fileno()).st_size
            file.seek(max(file.tell(), size - _TAIL_BYTES))
            complete = file.read(_TAIL_BYTES).decode().rpartition("\n")[0]
        cells = complete.rpartition("\n")[2].strip().split(",")
        return {name: float(cell) for name, cell in zip(header, cells, strict=True) if cell}
    except (OSError, ValueError):
        return {}


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
