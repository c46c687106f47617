"""Runs that are started, watched and judged, so many at a time, until their source has no more."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sem.signals import stop_on_signals
from sem.sweeps.display import SweepDisplay
from sem.sweeps.experiment import Budget, Experiment, Run
from sem.sweeps.process import FolderInUse, RunProcess, StopLimits, at_work, log_tail, stop_all
from sem.sweeps.record import Record, State, read_record, write_record
from sem.sweeps.results import FINAL, HISTORY, last_row, read_final

_POLL = 0.05


class Source(Protocol):
    """Where runs come from."""

    @property
    def waiting(self) -> int:
        """Runs that are still to come."""
        ...

    def next(self) -> Run | None:
        """The next one; None where there is none now, which may change when one has ended."""
        ...

    def ended(self, run: Run, record: Record) -> None:
        """Hear that a run has come to its end in this sweep, or had so in an earlier one."""
        ...

    def unpromising(self, run: Run) -> str:
        """Why a run that is at work should be given up; empty if it should not."""
        ...


class Listed:
    """Runs that are known beforehand, in their order."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._queue = deque(runs)

    @property
    def waiting(self) -> int:
        """Runs that were not handed out yet."""
        return len(self._queue)

    def next(self) -> Run | None:
        """The next of the list; None once it is through."""
        return self._queue.popleft() if self._queue else None

    def ended(self, run: Run, record: Record) -> None:
        """Nothing: what becomes of one run does not change the list."""

    def unpromising(self, run: Run) -> str:
        """Empty: none of them is given up."""
        return ""


@dataclass
class Runner:
    """Takes the runs of a source to their ends, ``jobs`` at once.

    A run that is done is not run again, one that was interrupted is started again and continues by itself, one that
    failed is started again if ``retry_failed``. What happens to each is in its manifest before and after it happens.
    ``changed`` is called when some have ended.
    """

    experiment: Experiment
    budget: Budget
    display: SweepDisplay
    jobs: int = 1
    threads: int = 1
    limits: StopLimits = field(default_factory=StopLimits)
    retry_failed: bool = False
    changed: Callable[[], None] = lambda: None

    def run(self, source: Source) -> str | None:
        """Run all that ``source`` has; returns the name of the signal that ended it early, if one did."""
        active: dict[RunProcess, tuple[Run, Record]] = {}
        with stop_on_signals() as stop:
            try:
                while not stop:
                    while len(active) < self.jobs and not stop and (run := source.next()) is not None:
                        self._begin(run, source, active)
                    if not active:
                        break
                    time.sleep(_POLL)
                    self._watch(source, active)
            finally:
                if active:
                    if stop:
                        self.display.message(f"{stop.signal_name}: asking {_runs(len(active))} to save and end")
                    stop_all(list(active), self.limits)
                    for process, (run, record) in active.items():
                        self._settle(run, _stopped(run, record, process, self.experiment))
            return stop.signal_name

    def _begin(self, run: Run, source: Source, active: dict[RunProcess, tuple[Run, Record]]) -> None:
        """Start a run, or find that there is no need."""
        record = read_record(run)
        if record.state == "running":
            if at_work(run.folder):
                self.display.tell(*run.key, "running", "left at work by an earlier sweep")
                active[RunProcess.adopt(run.folder, record.pid)] = (run, record)
                return
            record = _left_behind(run, record, self.experiment)
        if record.done and not (self.retry_failed and record.state == "failed"):
            write_record(run.folder, record)
            self.display.tell(*run.key, record.state, "in an earlier sweep")
            source.ended(run, record)
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                (run.folder / FINAL).unlink()
            record = dataclasses.replace(
                record,
                command=run.command,
                state="running",
                attempts=record.attempts + 1,
                threads=self.threads,
                pid=None,
                reason="",
                log=(),
            )
            write_record(run.folder, record)
            process = RunProcess.start(run.command, run.folder, self.threads)
        except (OSError, FolderInUse) as error:
            record = dataclasses.replace(record, state="failed", reason=f"it could not be started: {error}")
            self._settle(run, record)
            source.ended(run, record)
            return
        record = dataclasses.replace(record, pid=process.pid)
        active[process] = (run, record)
        write_record(run.folder, record)
        self.display.remaining(source.waiting, self._shares(active))
        again = "" if record.attempts == 1 else f"attempt {record.attempts}, "
        self.display.tell(*run.key, "running", f"{again}left {self.display.left}")

    def _watch(self, source: Source, active: dict[RunProcess, tuple[Run, Record]]) -> None:
        """Judge the runs that have ended, and give up those that the source gives up."""
        before = len(active)
        for process, (run, record) in list(active.items()):
            if process.running:
                if reason := source.unpromising(run):
                    stop_all([process], self.limits)
                    record = _with(record, process, "pruned", reason)
                else:
                    continue
            else:
                record = _ended(run, record, process, self.experiment)
            del active[process]
            self._settle(run, record)
            if record.state == "interrupted":  # an adopted one
                self._begin(run, source, active)
            else:
                source.ended(run, record)
        if len(active) < before:
            self.changed()
        self.display.remaining(source.waiting, self._shares(active))

    def _shares(self, active: Mapping[RunProcess, tuple[Run, Record]]) -> dict[tuple[str, int], tuple[float, float]]:
        """Of each run at work, how much is done, and the seconds that this took, earlier attempts included."""
        shares = {}
        for process, (run, _) in active.items():
            row = last_row(run.folder / HISTORY)
            spent = max(row.get(self.experiment.seconds, 0.0), process.seconds)
            trained = row.get(self.experiment.seconds, process.seconds)
            shares[run.key] = (self.budget.share(row.get("step", 0.0), trained), spent)
        return shares

    def _settle(self, run: Run, record: Record) -> None:
        """Write down and show that a run has ended."""
        write_record(run.folder, record)
        text = record.reason
        if record.state == "finished":
            figures, _ = read_final(run.folder / FINAL, self.experiment)
            shown = [f"{figures[figure.name]:.5g}" for figure in self.experiment.figures[:1]]
            text = f"{' '.join(shown)} in {record.seconds:.0f} s"
        self.display.tell(*run.key, record.state, text, record.seconds if record.state == "finished" else None)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def settled(run: Run, experiment: Experiment) -> Record:
    """What is known of a run that this process does not run: as its manifest says, or as its process left it.

    Raises:
        ValueError: as :func:`~sem.sweeps.record.read_record`.
    """
    record = read_record(run)
    if record.state == "running" and not at_work(run.folder):
        return _left_behind(run, record, experiment)
    return record


def _ended(run: Run, record: Record, process: RunProcess, experiment: Experiment) -> Record:
    """The record of a run whose process has ended by itself."""
    if process.adopted:
        return _with(record, process, *_by_final(run, experiment))
    status = process.status or 0
    if status == 0:
        state, reason = _by_final(run, experiment)
        return _with(record, process, "failed" if state == "interrupted" else state, reason, log_tail(run.folder))
    how = f"it ended with status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            how = f"it was ended by {signal.Signals(-status).name}"
    return _with(record, process, "failed", how, log_tail(run.folder))


def _stopped(run: Run, record: Record, process: RunProcess, experiment: Experiment) -> Record:
    """The record of a run that was asked to stop."""
    state, _ = _by_final(run, experiment)
    return _with(record, process, "finished" if state == "finished" and not process.status else "interrupted", "")


def _left_behind(run: Run, record: Record, experiment: Experiment) -> Record:
    """The record of a run that a killed sweep left as running, and whose process is gone."""
    state, _ = _by_final(run, experiment)
    return dataclasses.replace(record, state=state, pid=None)


def _by_final(run: Run, experiment: Experiment) -> tuple[State, str]:
    try:
        read_final(Path(run.folder / FINAL), experiment)
    except ValueError as error:
        return "interrupted", f"it ended without its figures: {error}"
    return "finished", ""


def _with(
    record: Record, process: RunProcess, state: State, reason: str = "", log: list[str] | tuple[str, ...] = ()
) -> Record:
    return dataclasses.replace(
        record,
        state=state,
        seconds=record.seconds + process.seconds,
        pid=None,
        reason=reason,
        log=tuple(log) if state == "failed" else (),
    )
