"""A whole sweep: arms times seeds, perhaps a search behind them, and the summary."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sem.files import write_text
from sem.settings import changed_settings, shorten
from sem.sweeps.arms import check_settings
from sem.sweeps.display import SweepDisplay
from sem.sweeps.experiment import Arm, Budget, Experiment, Run, make_run, plain, planned
from sem.sweeps.process import StopLimits, holding
from sem.sweeps.record import read_record
from sem.sweeps.results import RunResult, read_result
from sem.sweeps.runner import Listed, Runner, settled
from sem.sweeps.search import Search
from sem.sweeps.summary import Summary
from sem.sweeps.trials import TrialSource, open_study

_SWEEP_FILE = "sweep.json"
_BASE = Arm("base")
_SECONDS_BETWEEN_TABLES = 20.0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is run, and how.

    Args:
        experiment: makes and judges runs.
        arms: what is compared.
        seeds: of each arm.
        output: folder of everything.
        budget: of each run, which ``experiment.command`` has to keep.
        jobs: runs at once.
        threads: OpenMP threads of each.
        limits: how long runs may take to stop.
        retry_failed: whether runs that failed are run again.
        search: numbers to look for, behind the arms.
        trials: how many of them.
        storage: URL of the search's database; None: a file in ``output``.
        command: how this sweep was started, for the summary.

    Raises:
        ValueError: there is nothing to run, a number is impossible, or arms are impossible or the same.
    """

    experiment: Experiment
    arms: Sequence[Arm]
    seeds: Sequence[int]
    output: Path
    budget: Budget
    jobs: int = 1
    threads: int = 1
    limits: StopLimits = StopLimits()
    retry_failed: bool = False
    search: Search | None = None
    trials: int = 0
    storage: str | None = None
    command: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, least in (("jobs", 1), ("threads", 1), ("trials", 0 if self.search is None else 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} = {getattr(self, name)}: expected an integer >= {least}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds = {shorten(list(self.seeds))}: expected different integers >= 0, at least one")
        if not self.arms and self.search is None:
            raise ValueError("arms: expected at least one, or a search")
        if problems := check_settings(self.arms, self.experiment):
            raise ValueError("\n".join(problems))

    def run(self, console: Console | None = None) -> SweepResult:
        """Run what is not done yet, and write the summary; Ctrl-C or SIGTERM stops the runs and keeps what they have.

        Raises:
            ValueError: the folder holds another sweep, or another process is at work in it.
            ImportError: a search needs Optuna.
            OSError: a file could not be written.
        """
        with holding(self.output):
            owner = self._claim()
            runs = [make_run(self.experiment, self.output, *pair) for pair in planned(self.arms, self.seeds)]
            self._check(runs)
            self.experiment.prepare(self.output)
            study = None
            if self.search is not None:
                study = open_study(self.search, self.seeds, self.output, self.storage, self.jobs)
            trials = None
            if study is not None and self.search is not None:
                parts = self.experiment, self.output, self.seeds, self.trials, owner, self.retry_failed
                trials = TrialSource(self.search, study, *parts)
            written = time.monotonic()

            def keep_current() -> None:
                nonlocal written
                if time.monotonic() - written > _SECONDS_BETWEEN_TABLES:
                    self._summary(trials).write(self.output, curves=False)
                    written = time.monotonic()

            with SweepDisplay(self.seeds, self.jobs, console) as display:
                how = self.jobs, self.threads, self.limits, self.retry_failed
                runner = Runner(self.experiment, self.budget, display, *how, keep_current)
                stopped = runner.run(Listed(runs))
                if trials is not None and stopped is None:
                    stopped = runner.run(trials)
                summary = self._summary(trials)
                if note := summary.write(self.output):
                    display.message(note)
            return SweepResult(summary, stopped)

    def _claim(self) -> str:
        """Make the folder this sweep's, or see that it is; returns the sweep's own name."""
        path = self.output / _SWEEP_FILE
        base = plain(self.experiment.settings(_BASE, 0))
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, Mapping) or not isinstance(content.get("id"), str):
                raise ValueError(f"it is {shorten(content)}")
        except FileNotFoundError:
            owner = uuid.uuid4().hex
            write_text(path, json.dumps({"id": owner, "base": base}, indent=1) + "\n")
            return owner
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: expected what a sweep wrote ({error}); name another folder") from None
        known = content.get("base")
        if known != base:
            changes = changed_settings(known, base) if isinstance(known, Mapping) else ["another one"]
            raise ValueError(
                f"{self.output}: expected the base configuration of the sweep that is there, got {'; '.join(changes)}; "
                "name another folder"
            )
        return str(content["id"])

    def _check(self, runs: Sequence[Run]) -> None:
        """Refuse a folder with runs of other settings before anything is run."""
        problems = []
        for run in runs:
            try:
                read_record(run)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))

    def _summary(self, trials: TrialSource | None) -> Summary:
        """Of what is known by now."""
        arms = [*self.arms, *([] if trials is None else trials.arms)]
        runs = [[make_run(self.experiment, self.output, arm, seed) for seed in self.seeds] for arm in arms]
        return Summary(
            experiment=self.experiment,
            budget=self.budget,
            arms=arms,
            results=[[self._result(run) for run in of_arm] for of_arm in runs],
            runs=[run for of_arm in runs for run in of_arm],
            jobs=self.jobs,
            command=self.command,
            searched=None if self.search is None else self.search.figure,
        )

    def _result(self, run: Run) -> RunResult:
        return read_result(run, settled(run, self.experiment), self.experiment)


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended.

    Attributes:
        summary: what was found so far.
        interrupted_by: name of the signal that ended it early, or None.
    """

    summary: Summary
    interrupted_by: str | None
