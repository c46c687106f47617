"""What a sweep writes down about each run: whether it is done, and as what."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sem.files import write_text
from sem.settings import changed_settings, shorten
from sem.sweeps.experiment import Run, plain

MANIFEST = "manifest.json"
State = Literal["waiting", "running", "interrupted", "finished", "failed", "pruned"]
_STATES = ("waiting", "running", "interrupted", "finished", "failed", "pruned")


@dataclass(frozen=True)
class Record:
    """One run as its ``manifest.json`` tells it.

    Attributes:
        identity: of the run, see :attr:`~sem.sweeps.experiment.Run.identity`.
        settings: what decides its results.
        command: how it was started.
        state: where it stands.
        attempts: times that it was started.
        seconds: wall-clock seconds of its processes.
        threads: OpenMP threads that it was given.
        pid: of the process that runs it.
        reason: why it failed, or was pruned.
        log: last lines of the log of a run that failed.
    """

    identity: str
    settings: Mapping[str, Any]
    command: tuple[str, ...]
    state: State = "waiting"
    attempts: int = 0
    seconds: float = 0.0
    threads: int = 1
    pid: int | None = None
    reason: str = ""
    log: tuple[str, ...] = field(default=())

    @property
    def done(self) -> bool:
        """Whether nothing is left to run, unless failed ones are tried again."""
        return self.state in ("finished", "failed", "pruned")


def new_record(run: Run) -> Record:
    """The record of a run that has not begun."""
    return Record(run.identity, plain(run.settings), run.command)


def read_record(run: Run) -> Record:
    """What is known of ``run``; a new record where nothing is.

    Raises:
        ValueError: the folder holds a run with other settings, or its manifest is damaged.
    """
    path = run.folder / MANIFEST
    advice = "delete the folder to run it anew, or name another one for the sweep"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = _from_json(content)
    except FileNotFoundError:
        return new_record(run)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected the record of a run ({error}); {advice}") from None
    if record.identity != run.identity:
        changes = changed_settings(record.settings, plain(run.settings)) or ["another command line"]
        raise ValueError(f"{run.folder}: expected a run of the same settings, got {'; '.join(changes)}; {advice}")
    return record


def write_record(folder: Path, record: Record) -> None:
    """Write ``manifest.json``, all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MANIFEST, json.dumps(dataclasses.asdict(record), indent=1) + "\n")


_TYPES: dict[str, type | tuple[type, ...]] = {
    "identity": str,
    "settings": dict,
    "command": list,
    "state": str,
    "attempts": int,
    "seconds": (int, float),
    "threads": int,
    "pid": (int, type(None)),
    "reason": str,
    "log": list,
}


def _from_json(content: Any) -> Record:
    if not isinstance(content, dict) or set(content) != set(_TYPES):
        raise ValueError(f"it is {shorten(content)}")
    for name, kind in _TYPES.items():
        if not isinstance(content[name], kind):
            raise ValueError(f"{name} = {shorten(content[name])}")
    for name in ("command", "log"):
        if not all(isinstance(item, str) for item in content[name]):
            raise ValueError(f"{name} = {shorten(content[name])}")
        content[name] = tuple(content[name])
    if content["state"] not in _STATES:
        raise ValueError(f"state = {shorten(content['state'])}")
    return Record(**content)
