"""Checkpoints that survive a crash at any moment.

A checkpoint is written to a temporary file in its own folder, flushed to the disk and then renamed, so a file
that bears a checkpoint's name was complete when it got it. It is an ordinary ``torch.save`` file whose last bytes
are a digest of all others (:mod:`sem.seal`), checked before anything is loaded, so a truncated or altered
file is noticed and the one before it is used. Loading never runs code (``weights_only=True``).

*Damaged* is what was read and is not what was written. What could not be read just now, for want of memory, of a
file descriptor, of a permission or of a disk that answers, is an error of that kind, and nothing is done about it.
"""

from __future__ import annotations

import errno
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from sem.files import TEMPORARY, free_name, replacing
from sem.seal import SealingFile, is_whole

_NAME = re.compile(r"step_(\d+)\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none could be read."""


class CheckpointDamaged(CheckpointError):
    """A checkpoint was read, and is not what was written."""


class CheckpointMissing(CheckpointError):
    """There is no file of that name."""


class CheckpointUnreadable(CheckpointError):
    """A checkpoint could not be read just now; nothing is known of what it holds."""


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged and an older one was taken, or its whole could not be checked."""


class CheckpointStore:
    """The checkpoints ``step_<n>.pt`` of one folder, of which the newest ``keep`` stay.

    Args:
        folder: made when the first checkpoint is written.
        keep: how many to keep.
        own: rename damaged ones to ``*.damaged`` when they are met, which only the run's own process may.

    Example:
        >>> import tempfile
        >>> store = CheckpointStore(tempfile.mkdtemp(), keep=2)
        >>> path = store.save(7, {"weights": torch.ones(3)})
        >>> path.name, store.load_latest()[1]["weights"].sum().item()
        ('step_00000007.pt', 3.0)
    """

    def __init__(self, folder: str | Path, keep: int = 2, *, own: bool = False) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        self.folder = Path(folder)
        self.keep = keep
        self.own = own
        self.replaces: Path | None = None
        """A folder whose content the next checkpoint makes superfluous; it is deleted then."""

    def path(self, step: int) -> Path:
        """Where the checkpoint of ``step`` is, or would be."""
        return self.folder / f"step_{step:08d}.pt"

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        found = self.folder.glob("step_*.pt") if self.folder.is_dir() else ()
        return sorted((path for path in found if _NAME.fullmatch(path.name) and path.is_file()), key=step_of)

    def unusable(self) -> list[Path]:
        """What bears the name of a checkpoint and was set aside."""
        found = self.folder.glob("step_*.pt.*") if self.folder.is_dir() else ()
        return sorted(path for path in found if not path.name.endswith(TEMPORARY))

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
                path.unlink(missing_ok=True)
        if self.replaces is not None:
            shutil.rmtree(self.replaces, ignore_errors=True)
            self.replaces = None
        return target

    def load_latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest undamaged checkpoint and its content; None where there is no checkpoint at all.

        Whoever else writes to the folder meanwhile does not matter: what was removed since it was listed has a
        successor.

        Raises:
            CheckpointUnreadable: the newest one cannot be read now; nothing was renamed.
            CheckpointError: there are checkpoints, and all of them are damaged.
        """
        problems: list[str] = []
        passed: set[Path] = set()
        while left := [path for path in self.paths() if path not in passed]:
            path = left[-1]
            passed.add(path)
            try:
                content = load(path)
            except CheckpointMissing:
                continue
            except CheckpointDamaged as error:
                problems.append(str(error))
                if self.own:
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
    """Rename ``path`` so that it no longer counts as a checkpoint, over nothing that is there; returns the new path."""
    return path.rename(free_name(path.with_name(f"{path.name}.{reason}")))


def load(path: str | Path) -> dict[str, Any]:
    """The content of one checkpoint on the CPU, after every byte of it was verified.

    One without a digest, as earlier versions wrote it, has its records' checksums verified instead, with a
    :class:`CheckpointWarning`.

    Raises:
        CheckpointMissing: there is no such file.
        CheckpointDamaged: the file is truncated, altered or no checkpoint.
        CheckpointUnreadable: the file, or the memory to hold it, cannot be had now.
        CheckpointError: the file is what was written, and no checkpoint.
    """
    path = Path(path)
    whole = None
    try:
        whole = is_whole(path)
        if whole is None:
            _check_records(path)
            message = f"{path.name}: has no digest, as earlier versions wrote it; its records have their checksums"
            warnings.warn(message, CheckpointWarning, stacklevel=2)
        elif not whole:
            raise CheckpointDamaged(f"{path}: damaged, {_where(path) or 'it is not what was written'}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointMissing(f"{path}: there is no such checkpoint") from None
    except CheckpointError:
        raise
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "not enough memory"
        raise CheckpointUnreadable(f"{path}: cannot be read now ({reason}); nothing was changed") from error
    except Exception as error:  # a corrupt archive fails in as many ways as it has bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allocate" in reason:
            raise CheckpointUnreadable(f"{path}: cannot be read now ({reason}); nothing was changed") from error
        if whole:
            raise CheckpointError(f"{path}: no checkpoint, though it is whole ({reason})") from error
        raise CheckpointDamaged(f"{path}: damaged or no checkpoint ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: no checkpoint, it holds a {type(content).__name__}")
    return content


def load_parameters(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Give ``model`` the parameters in a checkpoint's content: all that it has, and no other.

    Raises:
        ValueError: there are none, or some are missing, are not the model's or have another shape; all those are named,
            and what ``model`` holds then is of no use.

    Example:
        >>> load_parameters(nn.Linear(1, 1, bias=False), {"model": {"weight": torch.ones(1, 1), "b": torch.ones(1)}})
        Traceback (most recent call last):
        ValueError: model: expected the parameters of Linear; Unexpected key(s) in state_dict: "b".
    """
    if not isinstance(content.get("model"), dict):
        raise ValueError(f"checkpoint: expected an entry 'model' with parameters by name, got {sorted(content)}")
    try:
        model.load_state_dict(content["model"])
    except (RuntimeError, TypeError, AttributeError) as error:  # the latter two of values that are no tensors
        head, _, problems = str(error).partition("\n")
        reason = " ".join((problems or head).split())
        raise ValueError(f"model: expected the parameters of {type(model).__name__}; {reason}") from None


def _damaged_record(path: Path) -> str | None:
    """The first record of an archive that has not its checksum."""
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _where(path: Path) -> str | None:
    """Which record of a damaged archive is, as far as it can still be read."""
    try:
        damaged = _damaged_record(path)
    except Exception:  # a corrupt archive fails in as many ways as it has bytes
        return None
    return None if damaged is None else f"the checksum of {damaged} is wrong"


def _check_records(path: Path) -> None:
    try:
        damaged = _damaged_record(path)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place outside the file
            raise CheckpointDamaged(f"{path}: damaged or no checkpoint (its directory leads out of the file)") from None
        raise
    if damaged is not None:
        raise CheckpointDamaged(f"{path}: damaged, the checksum of {damaged} is wrong")


def write_atomically(target: Path, content: Any) -> None:
    """``torch.save`` to ``target``: afterwards it holds all of ``content``, or what it held before.

    Raises:
        OSError: the file could not be written; the temporary file is removed.
    """
    with replacing(target) as file:
        _save(content, file)


def _save(content: Any, file: IO[bytes]) -> None:
    sealing = SealingFile(file)
    try:
        torch.save(content, cast(IO[bytes], sealing))
        sealing.seal()
    except Exception:
        if sealing.error is not None:
            raise sealing.error from None
        raise
