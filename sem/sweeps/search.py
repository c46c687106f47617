"""Numbers that Optuna looks for: trials are arms of a sweep, and their runs are runs like all others."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sem.settings import changed_settings, read_yaml, shorten
from sem.sweeps.arms import TRIAL
from sem.sweeps.experiment import Arm, Experiment, Figure, Run, make_run, plain
from sem.sweeps.record import Record
from sem.sweeps.results import HISTORY, read_history

if TYPE_CHECKING:
    import optuna

STORAGE_FILE = "search.db"
STUDY = "sweep"
_SAMPLERS = ("tpe", "random")
Choice = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting that is searched.

    Attributes:
        key: dotted key of the setting.
        kind: what is drawn.
        low: smallest value of a number.
        high: largest value of a number.
        log: whether a number is drawn on a logarithmic scale.
        step: distance between the values of an ``int``.
        choices: values of a ``categorical``.
    """

    key: str
    kind: Literal["float", "int", "categorical"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: int = 1
    choices: tuple[Choice, ...] = ()

    def draw(self, trial: optuna.Trial) -> str:
        """The override that a trial suggests."""
        value: Choice
        if self.kind == "float":
            value = trial.suggest_float(self.key, self.low, self.high, log=self.log)
        elif self.kind == "int":
            value = trial.suggest_int(self.key, int(self.low), int(self.high), step=self.step, log=self.log)
        else:
            value = trial.suggest_categorical(self.key, self.choices)
        return self.override(value)

    def override(self, value: Choice) -> str:
        """What sets the parameter to ``value``."""
        words = {"True": "true", "False": "false", "None": "null"}
        text = value if isinstance(value, str) else words.get(str(value), str(value))
        return f"{self.key}={text}"

    @property
    def extremes(self) -> list[str]:
        """Overrides of the outermost values."""
        return [self.override(value) for value in (self.choices or (self._number(self.low), self._number(self.high)))]

    def _number(self, value: float) -> Choice:
        return int(value) if self.kind == "int" else value


@dataclass(frozen=True)
class Pruning:
    """When a trial's first seed is given up: where its validation loss is above the median of the earlier trials' first
    seeds at the same step.

    Attributes:
        startup_trials: trials that are never given up, and that have to be there to compare with.
        warmup_steps: steps of a run before it may be given up.
    """

    startup_trials: int = 5
    warmup_steps: int = 0


@dataclass(frozen=True)
class Search:
    """What is searched, and by what it is judged: the mean of ``figure`` over the seeds."""

    figure: Figure
    parameters: tuple[Parameter, ...]
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0
    pruning: Pruning | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by which two searches can be told apart."""
        pruning = None if self.pruning is None else vars(self.pruning)
        parameters = {parameter.key: vars(parameter) for parameter in self.parameters}
        return plain({"figure": self.figure.name, "pruning": pruning, "parameters": parameters})


def read_search(path: str | Path, experiment: Experiment) -> Search:
    """The search of a YAML file.

    Args:
        path: the file, with a mapping ``parameters`` of settings to what is drawn, and what else
            :class:`Search` has.
        experiment: knows the figures, and judges the settings by ``settings`` and ``reserved``.

    Raises:
        ValueError: the file cannot be used; one line for each mistake.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "search.yaml"
        >>> _ = file.write_text("parameters: {optim.lr: {kind: float, low: 1.0e-4, high: 0.1, log: true}}")
        >>> experiment = Experiment(
        ...     command=lambda *run: [], settings=lambda arm, seed: {}, figures=(Figure("error", "test error"),)
        ... )
        >>> read_search(file, experiment).parameters[0].extremes
        ['optim.lr=0.0001', 'optim.lr=0.1']
    """
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    problems: list[str] = []
    known = ("figure", "parameters", "sampler", "seed", "pruning")
    problems += [f"{shorten(key)}: expected one of {', '.join(known)}" for key in content if key not in known]
    figures = {figure.name: figure for figure in experiment.figures}
    figure = content.get("figure", next(iter(figures)))
    if not isinstance(figure, str) or figure not in figures:
        problems.append(f"figure = {shorten(figure)}: expected one of {', '.join(figures)}")
    sampler = content.get("sampler", "tpe")
    if sampler not in _SAMPLERS:
        problems.append(f"sampler = {shorten(sampler)}: expected one of {', '.join(_SAMPLERS)}")
    seed = content.get("seed", 0)
    if not _is_whole(seed) or not 0 <= seed < 2**31:
        problems.append(f"seed = {shorten(seed)}: expected an integer >= 0 and < 2**31")
    pruning, found = _read_pruning(content.get("pruning"))
    problems += found
    parameters, found = _read_parameters(content.get("parameters"), experiment)
    problems += found
    if problems:
        raise ValueError("\n".join(f"{path}: {problem}" for problem in problems))
    return Search(figures[str(figure)], parameters, sampler, seed, pruning)


def _read_pruning(content: Any) -> tuple[Pruning | None, list[str]]:
    if content is None:
        return None, []
    names = tuple(vars(Pruning()))
    if not isinstance(content, Mapping):
        return None, [f"pruning = {shorten(content)}: expected a mapping of {' and '.join(names)}, or null"]
    problems = [f"pruning.{name}: expected one of {', '.join(names)}" for name in content if name not in names]
    for name in names:
        if name in content and not (_is_whole(content[name]) and content[name] >= 0):
            problems.append(f"pruning.{name} = {shorten(content[name])}: expected an integer >= 0")
    return (None, problems) if problems else (Pruning(**content), [])


def _read_parameters(content: Any, experiment: Experiment) -> tuple[tuple[Parameter, ...], list[str]]:
    if not isinstance(content, Mapping) or not content:
        return (), [f"parameters: expected a mapping of settings, got {shorten(content)}"]
    parameters, problems = [], []
    for key, entry in content.items():
        found = list(_problems_of(key, entry, experiment.reserved))
        if not found:
            choices = tuple(entry.get("choices", ()))
            parameter = Parameter(key=key, **{**entry, "choices": choices})
            found = _problems_of_values(parameter, experiment)
            parameters.append(parameter)
        problems += found
    return tuple(parameters), problems


_ENTRIES = {
    "float": ({"kind", "low", "high"}, {"log"}),
    "int": ({"kind", "low", "high"}, {"log", "step"}),
    "categorical": ({"kind", "choices"}, set[str]()),
}


def _problems_of(key: Any, entry: Any, reserved: Mapping[str, str]) -> Iterator[str]:
    where = f"parameters.{key}"
    if not isinstance(key, str) or "." not in key or "=" in key or not key.isprintable():
        yield f"parameters: expected section.key, got {shorten(key)}"
        return
    if key in reserved:
        yield f"{where}: expected it not to be searched: {reserved[key]}"
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if not isinstance(kind, str) or kind not in _ENTRIES:
        yield f"{where}: expected a mapping with kind float, int or categorical, got {shorten(entry)}"
        return
    needed, allowed = _ENTRIES[kind]
    if not needed <= set(entry) <= needed | allowed:
        names = ", ".join(sorted(needed - {"kind"}))
        optional = f" and perhaps {', '.join(sorted(allowed))}" if allowed else ""
        yield f"{where}: expected {names}{optional} of kind {kind}, got {shorten(sorted(map(str, entry)))}"
        return
    if kind == "categorical":
        choices = entry["choices"]
        fits = isinstance(choices, list) and len(choices) >= 2 and all(map(_is_choice, choices))
        if not fits or len({repr(choice) for choice in choices}) < len(choices):
            yield f"{where}.choices: expected a list of two or more different values, got {shorten(choices)}"
        return
    yield from _problems_of_range(where, kind, entry)


def _problems_of_range(where: str, kind: str, entry: Mapping[str, Any]) -> Iterator[str]:
    fits, words = (_is_whole, "an integer") if kind == "int" else (_is_finite, "a number")
    for name in ("low", "high"):
        if not fits(entry[name]):
            hint = " (YAML reads 1e-4 as text; write 1.0e-4)" if isinstance(entry[name], str) else ""
            yield f"{where}.{name} = {shorten(entry[name])}: expected {words}{hint}"
            return
    log, step = entry.get("log", False), entry.get("step", 1)
    if not isinstance(log, bool):
        yield f"{where}.log = {shorten(log)}: expected true or false"
        return
    if not _is_whole(step) or step < 1 or (log and step != 1):
        yield f"{where}.step = {shorten(step)}: expected an integer >= 1, and 1 on a logarithmic scale"
    if not entry["low"] < entry["high"]:
        yield f"{where}: expected low < high, got {entry['low']!r} and {entry['high']!r}"
    elif log and not entry["low"] > 0:
        yield f"{where}.low = {entry['low']!r}: expected a number > 0 on a logarithmic scale"


def _problems_of_values(parameter: Parameter, experiment: Experiment) -> list[str]:
    """What the experiment has against the outermost values."""
    problems = []
    for override in parameter.extremes:
        try:
            experiment.settings(Arm(TRIAL, (override,)), 0)
        except ValueError as error:
            problems += [f"parameters: {line}" for line in str(error).split("\n")]
    return list(dict.fromkeys(problems))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_finite(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_choice(value: Any) -> bool:
    if isinstance(value, str):
        return value.isprintable()
    return value is None or isinstance(value, bool) or _is_finite(value)


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
        held_back = sum(run.key not in self._given for trial in self._open for run in trial.runs)
        return len(self._queue) + held_back + (self._again + max(0, self.trials - len(self._slots))) * len(self.seeds)

    def next(self) -> Run | None:
        while not self._queue and (self._again or len(self._slots) < self.trials):
            self._ask()
        return self._queue.popleft() if self._queue else None

    def ended(self, run: Run, record: Record) -> None:
        self._records[run.key] = record
        for trial in [trial for trial in self._open if any(run.key == own.key for own in trial.runs)]:
            self._advance(trial)

    def unpromising(self, run: Run) -> str:
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
        from sem.sweeps.results import FINAL, read_final

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
        raise ImportError("a search needs Optuna: pip install 'sem[sweep]'") from None

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
