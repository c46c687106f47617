"""What ``sem sweep`` and ``sem ptycho sweep`` share: options, checks, and runs of a wing's own training command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.configuration import Configuration, look_up

if TYPE_CHECKING:
    from sem.sweeps import Arm, Experiment, Figure

FAILED = 1
BASE_FILE = "base.yaml"
RESERVED = {
    "training.output_dir": "every run has a folder of its own",
    "training.max_steps": "every arm has the same budget, which --steps or the base configuration gives",
    "training.max_minutes": "every arm has the same budget, which --minutes or the base configuration gives",
    "training.num_threads": "every run has as many threads, which --threads gives",
    "training.loggers": "a sweep reads what the base configuration's csv logger writes",
}
"""What an arm may not set, and why, beside the seeds."""
_SEEDED = "--seeds gives every arm the same ones"
_OWN = {"training.output_dir": "--output", "training.num_threads": "--threads"}
"""Settings that the command has an option for, beside the seeds."""


@dataclass(frozen=True, kw_only=True)
class Wing:
    """Whose runs are swept.

    Attributes:
        config: its configuration, with a section ``training`` of :class:`sem.run_settings.RunSettings`.
        command: the words behind ``sem`` that train, such as ``("train",)``; they take ``--config`` and ``--resume``.
        seeds: the settings that a run's seed is given to.
        figures: of the base configuration, what finished runs are judged by: name, label, ``lower`` or ``higher``, and
            the name of the figure that is its floor.
        collapse: the figure that says whether a run collapsed.
    """

    config: type[Configuration]
    command: tuple[str, ...]
    seeds: tuple[str, ...]
    figures: Callable[[Any], list[tuple[str, str, str, str | None]]]
    collapse: str | None = None

    def experiment(self, base: Any, output: Path) -> Experiment:
        """Runs of the wing's command: arms override ``base``, which lies in the sweep's folder ``output``."""
        from sem.sweeps import Experiment, Figure

        file = output.resolve() / BASE_FILE

        def seeded(seed: int) -> tuple[str, ...]:
            return tuple(f"{key}={seed}" for key in self.seeds)

        def settings(arm: Arm, seed: int) -> dict[str, Any]:
            values = base.with_overrides(*arm.overrides, *seeded(seed)).to_dict()
            for key in ("output_dir", "num_threads"):
                del values["training"][key]
            return values

        def command(arm: Arm, seed: int, folder: Path) -> list[str]:
            train = [sys.executable, "-m", "sem", *self.command, "--config", str(file), "--resume", "auto"]
            own = (*seeded(seed), f"training.output_dir={folder}")
            return [*train, *_as_options(base, arm), *(f"--{setting}" for setting in own)]

        figures: list[Figure] = [Figure(*described) for described in self.figures(base)]  # type: ignore[arg-type]
        return Experiment(
            command=command,
            settings=settings,
            figures=tuple(figures),
            collapsed=self.collapse,
            reserved={**RESERVED, **dict.fromkeys(self.seeds, _SEEDED)},
            prepare=lambda folder: base.save(folder / BASE_FILE),
        )


def add_arguments(parser: Any, wing: Wing) -> None:
    """The options of a sweep, and every setting of the wing's configuration."""
    parser.add_argument(
        "--arms", metavar="YAML", help="file with a mapping 'arms' of names to lists of section.key=value"
    )
    parser.add_argument("--output", metavar="FOLDER", help="folder of the sweep; one that was begun is continued")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each arm; three decide something")
    parser.add_argument("--first-seed", type=int, default=0, metavar="SEED", help="the others count up from it")
    parser.add_argument("--steps", type=int, help="budget of a run, in steps; default: the configuration's")
    parser.add_argument("--minutes", type=float, help="budget of a run, in minutes of training")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of a run; default: the cores over --jobs")
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed")
    parser.add_argument("--search", metavar="YAML", help="file of numbers that Optuna looks for, behind the arms")
    parser.add_argument("--trials", type=int, default=20, metavar="K", help="trials of the search, each with all seeds")
    where = "database of the search, as a URL; default: an SQLite file in the sweep's folder"
    parser.add_argument("--storage", metavar="URL", help=where)
    wing.config.add_arguments(parser)


def run(options: Any, wing: Wing, words: tuple[str, ...]) -> int:
    """The sweep that ``options`` describe; ``words`` is what the command itself is called, for the summary."""
    from sem.sweeps import Budget, Sweep, read_arms, read_search

    output = _output(options)
    base = _base(options, wing)
    threads = options.threads or base.training.num_threads or max(1, _cores() // max(1, options.jobs))
    base = base.with_overrides(f"training.num_threads={threads}")
    experiment = wing.experiment(base, output)
    training = base.training
    sweep = Sweep(
        experiment=experiment,
        arms=[] if options.arms is None else read_arms(options.arms, experiment),
        seeds=range(options.first_seed, options.first_seed + options.seeds),
        output=output,
        budget=Budget(
            steps=training.max_steps,
            seconds=None if training.max_minutes is None else 60 * training.max_minutes,
        ),
        jobs=options.jobs,
        threads=threads,
        retry_failed=options.retry_failed,
        search=None if options.search is None else read_search(options.search, experiment),
        trials=0 if options.search is None else options.trials,
        storage=options.storage,
        command=_own_command(options.storage, words),
    )
    result = sweep.run()
    for line in result.summary.lines():
        print(line)
    print(f"see {output / 'summary.md'}")
    if result.interrupted_by is not None:
        print(f"{result.interrupted_by}: stopped; the same command goes on where it was")
        return 0
    return FAILED if result.summary.failed else 0


def _as_options(base: Any, arm: Arm) -> list[str]:
    """An arm's overrides as options of the training command, which takes a list as several words."""
    config = base.with_overrides(*arm.overrides)
    lists = {
        key: getattr(getattr(config, key.partition(".")[0]), info.name)
        for key, info in config.settings().items()
        if info.kind is tuple
    }
    options = []
    for override in arm.overrides:
        key = override.partition("=")[0].strip()
        if key not in lists:
            options.append(f"--{override}")
        elif not lists[key]:
            raise ValueError(f"arm {arm.name}: expected a value of {key}, which the base configuration can empty")
        else:
            options += [f"--{key}", *lists[key]]
    return options


def _output(options: Any) -> Path:
    if options.output is None:
        raise ValueError("--output: expected the folder of the sweep, got none")
    if options.arms is None and options.search is None:
        raise ValueError("--arms: expected a file of arms, or of a search as --search, got neither")
    for name, least in (("seeds", 1), ("first_seed", 0), ("jobs", 1), ("threads", 1), ("trials", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} = {value}: expected an integer >= {least}")
    return Path(options.output)


def _base(options: Any, wing: Wing) -> Any:
    """The base configuration, with the budget in it."""
    own = {**_OWN, **dict.fromkeys(wing.seeds, "--seeds and --first-seed")}
    for key, option in own.items():
        if (given := look_up(options, key)) is not None:
            raise ValueError(f"--{key}: expected {option} in its place, got {given!r}")
    if options.steps is not None and options.minutes is not None:
        raise ValueError(f"--steps = {options.steps}: expected none beside --minutes = {options.minutes:g}")
    budget = []
    if options.steps is not None:
        budget = [f"training.max_steps={options.steps}", "training.max_minutes=null"]
    elif options.minutes is not None:
        budget = [f"training.max_minutes={options.minutes!r}"]
    base: Any = wing.config.from_arguments(options).with_overrides(*budget)
    if "csv" not in base.training.loggers:
        raise ValueError(f"training.loggers = {list(base.training.loggers)}: expected csv among them")
    return base


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_command(storage: str | None, words: tuple[str, ...]) -> list[str]:
    """This process's command line, for the summary; the storage's address, which may hold a password, is left out."""
    if tuple(sys.argv[1 : 1 + len(words)]) != words:
        return []
    return ["sem", *(word if storage is None else word.replace(storage, "URL") for word in sys.argv[1:])]
