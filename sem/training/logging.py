"""Where metrics go: a CSV table, TensorBoard events, Weights & Biases."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sem.extras import how_to_install
from sem.files import free_name, write_text


class MetricLog(Protocol):
    """Somewhere the figures of a step go."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the ``figures`` measured at ``step``; steps come in order."""

    def close(self) -> None:
        """Finish what was begun; nothing is written afterwards."""


class CsvLog:
    """One row per logged step, one column per figure, empty where a figure was not measured.

    A figure that appears for the first time becomes a new last column. Each row is flushed when written.

    Args:
        path: the table; rows that are there already are kept up to ``resume_step``.
        resume_step: last step of the run that is continued; 0 starts a new table.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> log = CsvLog(path)
        >>> log.write(1, {"loss": 2.5})
        >>> log.close()
        >>> read_csv(path)
        [{'step': 1.0, 'loss': 2.5}]
    """

    def __init__(self, path: str | Path, resume_step: int = 0) -> None:
        self.path = Path(path)
        self._columns = ["step"]
        rows: list[dict[str, str]] = []
        if resume_step and self.path.exists():
            try:
                columns, rows = _read_table(self.path)
            except (UnicodeDecodeError, csv.Error):
                columns = []
            if "step" in columns:
                self._columns = columns
                rows = [row for row in rows if _is_before(row, resume_step)]
            else:  # no reason not to go on; what it may still hold is kept
                rows = []
                self.path.rename(free_name(self.path.with_name(f"{self.path.name}.damaged")))
        self._rewrite(rows)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Append the figures of ``step``."""
        new = [name for name in figures if name not in self._columns]
        if new:
            self._file.close()
            _, rows = _read_table(self.path)
            self._columns += new
            self._rewrite(rows)
        self._writer.writerow({"step": step, **{name: repr(float(v)) for name, v in figures.items()}})
        self._file.flush()

    def close(self) -> None:
        """Close the table, which is complete after every row."""
        self._file.close()

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        temporary = self.path.with_name(self.path.name + ".writing")
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)
        self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115
        self._writer = csv.DictWriter(self._file, self._columns)


class TensorBoardLog:
    """The same figures as TensorBoard scalars, grouped as ``train/`` and ``validation/``.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path, resume_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """One scalar per figure at ``step``; names that begin with ``val_`` belong to ``validation/``."""
        for name, value in figures.items():
            group = "validation" if name.startswith("val_") else "train"
            self._writer.add_scalar(f"{group}/{name.removeprefix('val_')}", value, step)

    def close(self) -> None:
        """Write the events that are still held back, and close the file."""
        self._writer.close()


class WandbLog:
    """The same figures as a run of Weights & Biases, named like its folder and continued with it.

    Args:
        folder: of the run; its file ``wandb_id`` remembers the run's id there.
        settings: what to show as the run's configuration.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, folder: str | Path, resume_step: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        import wandb

        folder = Path(folder)
        remembered = folder / "wandb_id"
        known = remembered.read_text(encoding="utf-8").strip() if resume_step and remembered.exists() else None
        self._run: Any = wandb.init(
            project="sem", name=folder.name, dir=str(folder), id=known, resume="allow", config=dict(settings or {})
        )
        write_text(remembered, f"{self._run.id}\n")

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures of ``step``."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Send what is left, and mark the run as finished."""
        self._run.finish()


def check_loggers(names: Iterable[str]) -> None:
    """Refuse a log that cannot be written, before anything else is done.

    Raises:
        ImportError: wandb is named and not installed.
    """
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise ImportError("training.loggers names wandb, which is not installed: pip install wandb")


def open_logs(
    names: Iterable[str],
    folder: Path,
    resume_step: int,
    settings: Mapping[str, Any],
    say: Callable[[str], None],
) -> list[MetricLog]:
    """The logs of a run in ``folder``, by the names of ``training.loggers``.

    TensorBoard is left out where it is not installed, which ``say`` is told.
    """
    logs: list[MetricLog] = []
    for name in names:
        if name == "csv":
            logs.append(CsvLog(folder / "metrics.csv", resume_step))
        elif name == "wandb":
            logs.append(WandbLog(folder, resume_step, settings))
        elif importlib.util.find_spec("tensorboard") is not None:
            logs.append(TensorBoardLog(folder / "tensorboard", resume_step))
        else:
            say(f"no TensorBoard events: {how_to_install('train')} for them")
    return logs


def read_csv(path: str | Path) -> list[dict[str, float]]:
    """The rows of a :class:`CsvLog` table, each with the figures that were measured.

    Raises:
        ValueError: the file is missing or is no such table.
    """
    try:
        columns, rows = _read_table(Path(path))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such table of metrics") from None
    if "step" not in columns:
        raise ValueError(f"{path}: expected a table with a column 'step', got {columns}")
    try:
        return [{name: float(text) for name, text in row.items() if text} for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected numbers, {error}") from None


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def _is_before(row: Mapping[str, str], resume_step: int) -> bool:
    """Whether a row belongs to the part of the run that is kept; a half-written last row does not."""
    try:
        return int(row["step"]) <= resume_step and None not in row.values()
    except (TypeError, ValueError):
        return False
