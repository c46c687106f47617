"""Checkpoints that survive a crash at any moment.

A checkpoint is written to a temporary file in its own folder, flushed to the disk and then renamed, so a file
that bears a checkpoint's name was complete when it got it. It is an ordinary ``torch.save`` file, a zip
archive with a CRC-32 of every tensor; all of them are checked before anything is loaded, so a truncated or
altered file is noticed and the one before it is used. Loading never runs code (``weights_only=True``).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch

from sem.files import TEMPORARY, replacing

_NAME = re.compile(r"step_(\d+)\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none could be read."""


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged and an older one was taken."""


class CheckpointStore:
    """The checkpoints ``step_<n>.pt`` of one folder, of which the newest ``keep`` stay.

    Args:
        folder: made when the first checkpoint is written.
        keep: how many to keep.

    Example:
        >>> import tempfile
        >>> store = CheckpointStore(tempfile.mkdtemp(), keep=2)
        >>> path = store.save(7, {"weights": torch.ones(3)})
        >>> path.name, store.load_latest()[1]["weights"].sum().item()
        ('step_00000007.pt', 3.0)
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        self.folder = Path(folder)
        self.keep = keep

    def path(self, step: int) -> Path:
        """Where the checkpoint of ``step`` is, or would be."""
        return self.folder / f"step_{step:08d}.pt"

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        found = self.folder.glob("step_*.pt") if self.folder.is_dir() else ()
        return sorted((path for path in found if _NAME.fullmatch(path.name)), key=step_of)

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Write ``content`` (tensors and plain Python values) as the checkpoint of ``step``.

        Older checkpoints beyond ``keep`` are removed afterwards, never before.

        Raises:
            CheckpointError: the disk is full or cannot be written to; the older checkpoints are still there.
        """
        target = self.path(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished()
            write_atomically(target, content)
        except OSError as error:
            kept = self.paths()
            state = f"{kept[-1].name} is kept" if kept else "there is no older one"
            message = f"{target}: cannot write the checkpoint ({error.strerror}); {state}"
            raise CheckpointError(message) from error
        for path in self.paths()[: -self.keep]:
            if path != target:
                path.unlink()
        return target

    def load_latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest undamaged checkpoint and its content; None where there is no checkpoint at all.

        A damaged one is renamed to ``*.damaged`` with a :class:`CheckpointWarning`, and the one before it is
        tried.

        Raises:
            CheckpointError: there are checkpoints, and all of them are damaged.
        """
        problems = []
        for path in reversed(self.paths()):
            try:
                content = load(path)
            except CheckpointError as error:
                problems.append(str(error))
                set_aside(path, "damaged")
                continue
            if problems:
                warnings.warn(f"{'; '.join(problems)}; continuing from {path.name}", CheckpointWarning, stacklevel=2)
            return path, content
        if problems:
            raise CheckpointError(f"no usable checkpoint is left: {'; '.join(problems)}")
        return None

    def set_aside_after(self, step: int) -> None:
        """Rename checkpoints of later steps to ``*.superseded``: the run goes another way from ``step``."""
        for path in self.paths():
            if step_of(path) > step:
                set_aside(path, "superseded")

    def _remove_unfinished(self) -> None:
        """What a killed process was writing is of no use to anyone."""
        for path in self.folder.glob(f"step_*.pt{TEMPORARY}"):
            path.unlink()


def step_of(path: Path) -> int:
    """The step in a checkpoint's name.

    Raises:
        ValueError: the name is no checkpoint's.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected a name like step_00000100.pt")
    return int(match[1])


def set_aside(path: Path, reason: str) -> Path:
    """Rename ``path`` so that it no longer counts as a checkpoint; returns the new path."""
    return path.replace(path.with_name(f"{path.name}.{reason}"))


def load(path: str | Path) -> dict[str, Any]:
    """The content of one checkpoint on the CPU, after every checksum in it was verified.

    Raises:
        CheckpointError: the file is missing, truncated, altered or no checkpoint.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path}: damaged, the checksum of {damaged} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    except CheckpointError:
        raise
    except Exception as error:  # a corrupt archive fails in as many ways as it has bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged or no checkpoint ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: no checkpoint, it holds a {type(content).__name__}")
    return content


def write_atomically(target: Path, content: Any) -> None:
    """``torch.save`` to ``target``: afterwards it holds all of ``content``, or what it held before.

    Raises:
        OSError: the file could not be written; the temporary file is removed.
    """
    with replacing(target) as file:
        _save(content, file)


class _RecordingFile:
    """A binary file that remembers the operating system's error, which ``torch.save`` replaces by its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _save(content: Any, file: IO[bytes]) -> None:
    recorder = _RecordingFile(file)
    try:
        torch.save(content, cast(IO[bytes], recorder))
    except Exception:
        if recorder.error is not None:
            raise recorder.error from None
        raise
