"""What the commands that train share: going on with a run, short options, and the last line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sem.configuration import Configuration, look_up

if TYPE_CHECKING:
    from sem.training.run import TrainingResult

Config = TypeVar("Config", bound=Configuration)


def add_arguments(parser: Any) -> None:
    """``--resume`` and ``--overwrite``."""
    where = (
        "continue a checkpoint or a run's folder, with its settings unless --config is given; "
        "'auto' or nothing: continue what training.output_dir holds, or start there"
    )
    parser.add_argument("--resume", nargs="?", const="auto", metavar="WHERE", help=where)
    parser.add_argument("--overwrite", action="store_true", help="replace the run in training.output_dir")


def configured(options: Any, kind: type[Config], short: Mapping[str, tuple[str, str | None]]) -> Config:
    """The configuration given, or, where a run is continued without ``--config``, the run's own; options win.

    Args:
        short: for each option that is short for a setting, that setting's key and the value given, None for none.

    Raises:
        ValueError: an option and its setting are both given, there is no such run, or a setting is impossible.
    """
    from sem.training.run_folder import AUTO_RESUME, run_folder_of

    overrides = []
    for option, (key, value) in short.items():
        if value is None:
            continue
        if (given := look_up(options, key)) is not None:
            raise ValueError(f"{option} and --{key} = {given}: expected one of the two, they are the same setting")
        overrides.append(f"{key}={value}")
    if options.resume in (None, AUTO_RESUME) or options.config is not None:
        return kind.from_arguments(options, overrides)
    if not Path(options.resume).exists():
        raise ValueError(f"--resume {options.resume}: expected a checkpoint, a run's folder or 'auto'")
    folder = run_folder_of(Path(options.resume))
    config = kind.from_arguments(options, overrides, files=[folder / "config.yaml"])
    key = "training.output_dir"
    named = look_up(options, key) is not None or any(override.startswith(f"{key}=") for override in overrides)
    return config if named else config.with_overrides(f"{key}={folder}")


def last_line(result: TrainingResult, folder: str, command: str, scores: list[str]) -> str:
    """How a run ended, and what to do now."""
    if result.interrupted_by is not None:
        advice = f"continue with: {command} --resume {folder}"
        return f"{result.interrupted_by}: stopped after step {result.step}; {advice}"
    return ", ".join([f"done after step {result.step}", *scores]) + f"; see {folder}"
