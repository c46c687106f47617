"""What a sweep has to be told: arms, seeds, the budget, and what is run and measured."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Better = Literal["lower", "higher"]
RUNS = "runs"
"""The folder of a sweep that has a folder for each arm, and in that one for each seed."""


@dataclass(frozen=True)
class Arm:
    """A name, and what it sets differently from the base configuration.

    Attributes:
        name: of the arm and of its folder.
        overrides: ``"section.key=value"`` texts; none for the base configuration as it is.
    """

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A number that a finished run is judged by.

    Attributes:
        name: its key in ``final.json``.
        label: what a table calls it.
        better: which of two values is the better one.
        floor: key in ``final.json`` of the value that is reached without learning anything, if the run knows it.
    """

    name: str
    label: str
    better: Better = "lower"
    floor: str | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every run may spend: steps, or seconds with steps as a second limit.

    Attributes:
        steps: most steps of a run.
        seconds: most seconds of a run; None where steps alone decide.

    Raises:
        ValueError: one of them is not positive.

    Example:
        >>> Budget(steps=400).text, Budget(steps=400, seconds=90).text
        ('400 steps', '90 seconds, at most 400 steps')
    """

    steps: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.steps >= 1:
            raise ValueError(f"steps = {self.steps}: expected an integer >= 1")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds = {self.seconds}: expected a number > 0")

    @property
    def by_time(self) -> bool:
        """Whether the clock ends the runs."""
        return self.seconds is not None

    @property
    def text(self) -> str:
        """The limits in words, as ``90 seconds, at most 400 steps``."""
        if self.seconds is None:
            return f"{self.steps} steps"
        return f"{self.seconds:g} seconds, at most {self.steps} steps"

    def share(self, step: float, seconds: float) -> float:
        """How much of a run is done, in [0, 1]."""
        done = step / self.steps
        return min(1.0, done if self.seconds is None else max(done, seconds / self.seconds))


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """How the runs of a sweep are made, and what they leave; the one thing a sweep knows about what is trained.

    A run is a command line. It continues by itself what it finds in its folder, and leaves there ``final.json``, a
    mapping with the figures, written when it is done, and ``metrics.csv``, a table with a column ``step`` and those
    named below, each row written when it is measured; empty cells are allowed.

    Attributes:
        command: the command line of an arm and a seed in a folder, which is absolute.
        settings: everything that decides what the run of an arm and a seed computes, as nested plain values: a run is
            the same run as long as these are. Raises ``ValueError`` where the arm's overrides are impossible.
        figures: what runs are judged by; the first one is what a search minimises or maximises by default.
        collapsed: key in ``final.json`` of the boolean that says whether the model has collapsed; None: not judged.
        reserved: settings that an arm may not have, each with the reason.
        prepare: writes what the commands need into the sweep's folder; called once nobody else is at work there.
        loss: column of the training loss.
        validation: column of the validation loss, where a lower value is a better one.
        gradient_norm: column of the gradient's norm.
        learning_rate: column of the learning rate.
        seconds: column of the seconds spent on training; where it is missing, those of the processes count.

    Example:
        >>> experiment = Experiment(
        ...     command=lambda arm, seed, folder: ["train", *arm.overrides, f"seed={seed}", f"folder={folder}"],
        ...     settings=lambda arm, seed: {"overrides": list(arm.overrides), "seed": seed},
        ...     figures=(Figure("error", "test error"),),
        ... )
        >>> experiment.command(Arm("fast", ("lr=0.1",)), 0, Path("out"))
        ['train', 'lr=0.1', 'seed=0', 'folder=out']
    """

    command: Callable[[Arm, int, Path], list[str]]
    settings: Callable[[Arm, int], Mapping[str, Any]]
    figures: tuple[Figure, ...]
    collapsed: str | None = None
    reserved: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda output: None
    loss: str = "loss"
    validation: str = "val_loss"
    gradient_norm: str = "grad_norm"
    learning_rate: str = "learning_rate"
    seconds: str = "elapsed_seconds"


@dataclass(frozen=True)
class Run:
    """One arm with one seed, in its folder."""

    arm: Arm
    seed: int
    folder: Path
    command: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, int]:
        """The arm's name and the seed, which no two runs of a sweep share."""
        return self.arm.name, self.seed

    @property
    def name(self) -> str:
        """What messages call the run: ``base seed 0``."""
        return f"{self.arm.name} seed {self.seed}"

    @property
    def identity(self) -> str:
        """SHA-256 of the settings and of the command line, without the names of the interpreter and of folders."""
        root = str(self.folder.parent.parent.parent)
        command = [part.replace(str(self.folder), "FOLDER").replace(root, "SWEEP") for part in self.command]
        if command[:1] == [sys.executable]:
            command[0] = "python"
        content = json.dumps([command, plain(self.settings)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def make_run(experiment: Experiment, output: Path, arm: Arm, seed: int) -> Run:
    """The run of an arm and a seed in the sweep's folder ``output``."""
    folder = output.resolve() / RUNS / arm.name / f"seed_{seed}"
    return Run(arm, seed, folder, tuple(experiment.command(arm, seed, folder)), experiment.settings(arm, seed))


def planned(arms: Sequence[Arm], seeds: Sequence[int]) -> list[tuple[Arm, int]]:
    """All pairs of arm and seed, in the order in which they are run.

    Seeds are outermost, so that the arms can be compared before all is done, and each seed begins with the next arm, so
    that none of them always has the same place in the hours of a sweep.

    Example:
        >>> [(arm.name, seed) for arm, seed in planned([Arm("a"), Arm("b")], [0, 1])]
        [('a', 0), ('b', 0), ('b', 1), ('a', 1)]
    """
    order = []
    for turn, seed in enumerate(seeds):
        first = turn % len(arms) if arms else 0
        order += [(arm, seed) for arm in (*arms[first:], *arms[:first])]
    return order


def plain(values: Any) -> Any:
    """``values`` as they come back from JSON."""
    return json.loads(json.dumps(values))
