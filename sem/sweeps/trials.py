"""Trials that Optuna asks for: arms of a sweep, whose runs are runs like all others."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sem.extras import how_to_install
from sem.settings import changed_settings
from sem.sweeps.arms import TRIAL
from sem.sweeps.experiment import Arm, Experiment, Run, make_run
from sem.sweeps.record import Record
from sem.sweeps.results import FINAL, HISTORY, read_final, read_history
from sem.sweeps.search import Search

if TYPE_CHECKING:
    import optuna

STORAGE_FILE = "search.db"
STUDY = "sweep"


@dataclass
class _Trial:
    """A trial that has no value yet."""

    trial: optuna.Trial
    arm: Arm
    runs: list[Run]
    reported: int = 0
    seen: tuple[int, int] = (0, 0)


@dataclass
class TrialSource:
    """Asks a study for trials, hands out their runs and tells the study their values.

    A study is continued: trials that were interrupted are asked again with the same numbers, in the same folders.

    Args:
        search: what is searched.
        study: see :func:`open_study`.
        experiment: makes the runs.
        output: folder of the sweep.
        seeds: of each trial.
        trials: how many this sweep asks for in all, those of earlier calls included.
        owner: name of this sweep among those that share the study.
        retry_failed: whether trials that failed are tried again.
    """

    search: Search
    study: optuna.Study
    experiment: Experiment
    output: Path
    seeds: Sequence[int]
    trials: int
    owner: str
    retry_failed: bool = False
    _open: list[_Trial] = field(default_factory=list)
    _queue: deque[Run] = field(default_factory=deque)
    _given: set[tuple[str, int]] = field(default_factory=set)
    _records: dict[tuple[str, int], Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._again = 0
        self._slots: set[int] = set()
        self._arms: dict[tuple[str, ...], str] = {}
        for trial in self._own():
            attributes = trial.user_attrs
            if trial.state.name != "WAITING":
                self._slots.add(int(attributes["slot"]))
            if "overrides" in attributes and "impossible" not in attributes:
                self._arms.setdefault(tuple(attributes["overrides"]), str(attributes["arm"]))
        self._take_up()

    @property
    def arms(self) -> list[Arm]:
        """Those of all trials so far, in their order."""
        return [Arm(name, overrides) for overrides, name in self._arms.items()]

    @property
    def waiting(self) -> int:
        """Runs that can still come: those of open trials, and all seeds of the trials that are not asked for yet."""
        held_back = sum(run.key not in self._given for trial in self._open for run in trial.runs)
        return len(self._queue) + held_back + (self._again + max(0, self.trials - len(self._slots))) * len(self.seeds)

    def next(self) -> Run | None:
        """A run of an open trial, else of a new one that the study is asked for; None where neither has one."""
        while not self._queue and (self._again or len(self._slots) < self.trials):
            self._ask()
        return self._queue.popleft() if self._queue else None

    def ended(self, run: Run, record: Record) -> None:
        """Note how a run ended; with it a trial hands out its other seeds, or tells the study its value or that it
        failed."""
        self._records[run.key] = record
        for trial in [trial for trial in self._open if any(run.key == own.key for own in trial.runs)]:
            if self.search.pruning is not None and run.key == trial.runs[0].key:
                self._report(trial)  # what later trials are compared with
            self._advance(trial)

    def unpromising(self, run: Run) -> str:
        """A sentence where the search prunes and the first seed of a trial does worse than earlier trials did; else
        empty."""
        if self.search.pruning is None:
            return ""
        for trial in self._open:
            if run.key == trial.runs[0].key and self._report(trial):
                return "its validation loss was above the median of the earlier trials"
        return ""

    def _own(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.user_attrs.get("owner") == self.owner]

    def _take_up(self) -> None:
        """Enqueue again what an earlier call left without a value, before its trial is closed."""
        from optuna.trial import TrialState

        waiting = {trial.user_attrs["slot"] for trial in self._own() if trial.state == TrialState.WAITING}
        settled = {
            trial.user_attrs["slot"]
            for trial in self._own()
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        }
        for trial in self._own():
            slot = trial.user_attrs["slot"]
            again = self.retry_failed and trial.state == TrialState.FAIL and slot not in settled
            if trial.state != TrialState.RUNNING and not again:
                continue
            if slot not in waiting:
                self.study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
                waiting.add(slot)
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
        self._again = len(waiting)

    def _ask(self) -> None:
        trial = self.study.ask()
        self._again -= "slot" in trial.user_attrs
        slot = int(trial.user_attrs.get("slot", trial.number))
        self._slots.add(slot)
        trial.set_user_attr("slot", slot)
        trial.set_user_attr("owner", self.owner)
        overrides = tuple(parameter.draw(trial) for parameter in self.search.parameters)
        arm = Arm(self._arms.get(overrides, f"{TRIAL}{slot:04d}"), overrides)  # the earlier one of the same values
        trial.set_user_attr("arm", arm.name)
        trial.set_user_attr("overrides", list(overrides))
        try:
            runs = [make_run(self.experiment, self.output, arm, seed) for seed in self.seeds]
        except ValueError as error:  # values that are allowed one by one and not together
            trial.set_user_attr("impossible", str(error))
            self._tell(trial, "FAIL")
            return
        self._arms[overrides] = arm.name
        opened = _Trial(trial, arm, runs)
        self._open.append(opened)
        self._advance(opened)

    def _advance(self, opened: _Trial) -> None:
        """Hand out the runs of a trial that are due, or tell the study how it ended."""
        records = [self._records.get(run.key) for run in opened.runs]
        states = [None if record is None else record.state for record in records]
        for state, outcome in (("failed", "FAIL"), ("pruned", "PRUNED")):
            if state in states:
                self._close(opened, outcome)
                return
        if all(state == "finished" for state in states):
            self._close(opened, "COMPLETE", self._value(opened))
            return
        alone = self.search.pruning is not None and states[0] is None
        for run in opened.runs[:1] if alone else opened.runs:
            if run.key not in self._given:
                self._given.add(run.key)
                self._queue.append(run)

    def _value(self, opened: _Trial) -> float:
        values = [read_final(run.folder / FINAL, self.experiment)[0][self.search.figure.name] for run in opened.runs]
        return sum(values) / len(values)

    def _close(self, opened: _Trial, state: str, value: float | None = None) -> None:
        self._open.remove(opened)
        needed = {run.key for trial in self._open for run in trial.runs}
        dropped = {run.key for run in opened.runs} - needed
        for run in [run for run in self._queue if run.key in dropped]:
            self._queue.remove(run)
            self._given.discard(run.key)
        self._tell(opened.trial, state if value is None or math.isfinite(value) else "FAIL", value)

    def _tell(self, trial: optuna.Trial, state: str, value: float | None = None) -> None:
        from optuna.trial import TrialState

        if state == "COMPLETE":
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=TrialState[state])

    def _report(self, opened: _Trial) -> bool:
        """Tell the study the new validation losses of a trial's first seed; whether to give it up."""
        table = opened.runs[0].folder / HISTORY
        try:
            seen = os.stat(table).st_mtime_ns, os.stat(table).st_size
            if seen == opened.seen:
                return False
            losses = read_history(table).get(self.experiment.validation, ())
        except (OSError, ValueError):
            return False
        opened.seen = seen
        sign = 1.0 if self.search.figure.better == "lower" else -1.0
        new = losses[opened.reported :]
        for step, loss in new:
            opened.trial.report(sign * loss, int(step))
        opened.reported = len(losses)
        return bool(new) and opened.trial.should_prune()


def open_study(search: Search, seeds: Sequence[int], output: Path, storage: str | None, jobs: int) -> optuna.Study:
    """The study of a sweep, new or continued.

    Args:
        search: what is searched.
        seeds: of each trial.
        output: folder of the sweep, which has the default storage, an SQLite file.
        storage: URL of another one, as Optuna takes it.
        jobs: runs at once.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: the storage cannot be used, or its study is of another search.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise ImportError(f"a search needs Optuna: {how_to_install('sweep')}") from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.pruning is not None:
        pruner = optuna.pruners.MedianPruner(search.pruning.startup_trials, search.pruning.warmup_steps)
    try:
        study = optuna.create_study(
            storage=storage or f"sqlite:///{output / STORAGE_FILE}",
            study_name=STUDY,
            direction="minimize" if search.figure.better == "lower" else "maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        asked = len(study.get_trials(deepcopy=False))
    except (SQLAlchemyError, ImportError, optuna.exceptions.OptunaError) as error:
        where = "storage" if storage else str(output / STORAGE_FILE)
        problem = " ".join(str(error).split())
        raise ValueError(f"{where}: expected a database that Optuna can use ({problem})") from None
    # A continued study draws on: from the same seed it would draw the first trials again.
    seed = (search.seed + asked) % 2**31
    if search.sampler == "random":
        study.sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=jobs > len(seeds))
    told = search.to_mapping() | {"seeds": list(seeds)}
    known = study.user_attrs.get("search", told)
    if known != told:
        changes = "; ".join(changed_settings(known, told))
        raise ValueError(f"search: expected the one that this study was begun with, got {changes}")
    study.set_user_attr("search", told)
    return study
