"""``sem sweep``: train arms of a configuration with several seeds each, and compare them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.config import SEMConfig, add_config_arguments, config_from_arguments
from sem.settings import setting_infos

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sem.sweeps import Arm, Experiment

HELP = "train arms of a configuration with several seeds each, compare them, search numbers"
FAILED = 1
BASE_FILE = "base.yaml"
RESERVED = {
    "training.output_dir": "every run has a folder of its own",
    "training.seed": "--seeds gives every arm the same ones",
    "data.shuffle_seed": "--seeds gives every arm the same ones",
    "training.max_steps": "every arm has the same budget, which --steps or the base configuration gives",
    "training.max_minutes": "every arm has the same budget, which --minutes or the base configuration gives",
    "training.num_threads": "every run has as many threads, which --threads gives",
    "training.loggers": "a sweep reads what the base configuration's csv logger writes",
}
"""What an arm may not set, and why."""
OWN = {
    "training.output_dir": "--output",
    "training.seed": "--seeds and --first-seed",
    "data.shuffle_seed": "--seeds and --first-seed",
    "training.num_threads": "--threads",
}
"""Settings that the command has an option for."""


def add_arguments(parser: ArgumentParser) -> None:
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
    add_config_arguments(parser)


def run(options: Namespace) -> int:
    from sem.sweeps import Budget, Sweep, read_arms, read_search

    output = _output(options)
    base = _base(options)
    threads = options.threads or base.training.num_threads or max(1, _cores() // max(1, options.jobs))
    base = base.with_overrides(f"training.num_threads={threads}")
    experiment = language_model(base, output)
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
        command=_own_command(options.storage),
    )
    result = sweep.run()
    for line in result.summary.lines():
        print(line)
    print(f"see {output / 'summary.md'}")
    if result.interrupted_by is not None:
        print(f"{result.interrupted_by}: stopped; the same command goes on where it was")
        return 0
    return FAILED if result.summary.failed else 0


def language_model(base: SEMConfig, output: Path) -> Experiment:
    """Runs of ``sem train``: arms override ``base``, which lies in the sweep's folder ``output``."""
    from sem.sweeps import Experiment, Figure

    file = output.resolve() / BASE_FILE

    def seeded(seed: int) -> tuple[str, str]:
        """Weights and order of the text; which text is held out stays the same."""
        return f"training.seed={seed}", f"data.shuffle_seed={seed}"

    def settings(arm: Arm, seed: int) -> dict[str, Any]:
        values = base.with_overrides(*arm.overrides, *seeded(seed)).to_dict()
        for key in ("output_dir", "num_threads"):
            del values["training"][key]
        return values

    def command(arm: Arm, seed: int, folder: Path) -> list[str]:
        train = [sys.executable, "-m", "sem", "train", "--config", str(file), "--resume", "auto"]
        own = (*seeded(seed), f"training.output_dir={folder}")
        return [*train, *_as_options(base, arm), *(f"--{setting}" for setting in own)]

    return Experiment(
        command=command,
        settings=settings,
        figures=(
            Figure("val_bits_per_byte", "held-out bits per byte"),
            Figure("val_loss", "held-out loss"),
        ),
        reserved=RESERVED,
        prepare=lambda folder: base.save(folder / BASE_FILE),
    )


def _as_options(base: SEMConfig, arm: Arm) -> list[str]:
    """An arm's overrides as options of ``sem train``, which takes a list as several words."""
    config = base.with_overrides(*arm.overrides)
    lists = {
        info.key: getattr(getattr(config, name), info.name)
        for name in config.to_dict()
        for info in setting_infos(type(getattr(config, name)))
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


def _output(options: Namespace) -> Path:
    if options.output is None:
        raise ValueError("--output: expected the folder of the sweep, got none")
    if options.arms is None and options.search is None:
        raise ValueError("--arms: expected a file of arms, or of a search as --search, got neither")
    for name, least in (("seeds", 1), ("first_seed", 0), ("jobs", 1), ("threads", 1), ("trials", 1)):
        value = options[name]
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} = {value}: expected an integer >= {least}")
    return Path(options.output)


def _base(options: Namespace) -> SEMConfig:
    """The base configuration, with the budget in it."""
    for key, option in OWN.items():
        if options[key] is not None:
            raise ValueError(f"--{key}: expected {option} in its place, got {options[key]!r}")
    if options.steps is not None and options.minutes is not None:
        raise ValueError(f"--steps = {options.steps}: expected none beside --minutes = {options.minutes:g}")
    budget = []
    if options.steps is not None:
        budget = [f"training.max_steps={options.steps}", "training.max_minutes=null"]
    elif options.minutes is not None:
        budget = [f"training.max_minutes={options.minutes!r}"]
    base = config_from_arguments(options).with_overrides(*budget)
    if "csv" not in base.training.loggers:
        raise ValueError(f"training.loggers = {list(base.training.loggers)}: expected csv among them")
    return base


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_command(storage: str | None) -> list[str]:
    """This process's command line, for the summary; the storage's address, which may hold a password, is left out."""
    if sys.argv[1:2] != ["sweep"]:
        return []
    return ["sem", *(word if storage is None else word.replace(storage, "URL") for word in sys.argv[1:])]
