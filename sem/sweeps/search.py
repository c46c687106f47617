"""The file of a search: which settings are drawn, read and checked in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sem.settings import read_yaml, shorten
from sem.sweeps.arms import TRIAL
from sem.sweeps.experiment import Arm, Experiment, Figure, plain

if TYPE_CHECKING:
    import optuna

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
        """The override that a trial suggests, to six digits."""
        value: Choice
        if self.kind == "float":
            drawn = trial.suggest_float(self.key, self.low, self.high, log=self.log)
            value = min(max(float(f"{drawn:.6g}"), self.low), self.high)
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
