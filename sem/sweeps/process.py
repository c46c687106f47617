"""A run as a process in a session of its own, and the locks that say who is at work."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_FILE = "log.txt"
_LOCK_FILE = "process.lock"
_LOG_BYTES, _LOG_LINES = 8192, 20
_POLL = 0.05


class FolderInUse(ValueError):
    """Another process is at work in this folder."""


@dataclass(frozen=True, kw_only=True)
class StopLimits:
    """How long runs have to end.

    Attributes:
        interrupt: seconds from SIGINT to SIGTERM.
        terminate: seconds from SIGTERM to SIGKILL.
    """

    interrupt: float = 120.0
    terminate: float = 15.0


class RunProcess:
    """A command at work in a folder, with its output in ``log.txt`` there.

    It is a process group of its own, so that Ctrl-C reaches it only through :func:`stop_all`. It holds a lock on the
    folder as long as it lives: when the sweep is killed and begins again, it finds the process instead of starting a
    second one.

    Attributes:
        pid: of the process, which is its group's number too; None of an adopted one where nobody wrote it down.
        adopted: whether an earlier sweep started it; its exit status stays unknown then.
    """

    def __init__(self, folder: Path, pid: int | None, process: subprocess.Popen[bytes] | None) -> None:
        self.folder = folder
        self.pid = pid
        self.adopted = process is None
        self._process = process
        self._started = time.monotonic()

    @classmethod
    def start(cls, command: Sequence[str], folder: Path, threads: int) -> RunProcess:
        """Run ``command`` with OpenMP's number of ``threads``.

        Raises:
            FolderInUse: a process is at work in the folder.
            OSError: the command could not be started.
        """
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        lock = _lock(folder / _LOCK_FILE)
        try:
            with open(folder / LOG_FILE, "ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)  # the process keeps it
        return cls(folder, process.pid, process)

    @classmethod
    def adopt(cls, folder: Path, pid: int | None) -> RunProcess:
        """The process of an earlier sweep, which still holds the folder."""
        return cls(folder, pid, None)

    @property
    def seconds(self) -> float:
        """Since it was started, or adopted."""
        return time.monotonic() - self._started

    @property
    def running(self) -> bool:
        """Whether the command is still at work; of an adopted one, whether anybody holds the folder's lock."""
        if self._process is not None:
            return self._process.poll() is None
        return at_work(self.folder)

    @property
    def status(self) -> int | None:
        """Its exit status, negative the number of the signal that ended it; None while it runs or where unknown."""
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its group, if it still runs."""
        if self.pid is not None and self.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def stop_all(processes: Sequence[RunProcess], limits: StopLimits) -> None:
    """End processes: by SIGINT, on which a run saves what it has; by SIGTERM; by SIGKILL.

    KeyboardInterrupt, from a user who does not want to wait, goes on to SIGKILL.
    """
    processes = [process for process in processes if process.pid is not None]
    try:
        for number, seconds in ((signal.SIGINT, limits.interrupt), (signal.SIGTERM, limits.terminate)):
            _send_and_wait(processes, number, seconds)
    except KeyboardInterrupt:
        pass
    _send_and_wait(processes, signal.SIGKILL, 10.0)


def _send_and_wait(processes: Sequence[RunProcess], number: signal.Signals, seconds: float) -> None:
    for process in processes:
        process.send(number)
    deadline = time.monotonic() + seconds
    while any(process.running for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL)


def log_tail(folder: Path) -> list[str]:
    """The last lines of a run's log, without what only a terminal understands."""
    try:
        with open(folder / LOG_FILE, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            text = file.read(_LOG_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = ("".join(filter(str.isprintable, line.expandtabs())).rstrip() for line in text.splitlines())
    return [line for line in lines if line][-_LOG_LINES:]


def at_work(folder: Path) -> bool:
    """Whether a process that a sweep started is at work in the folder."""
    if not (folder / _LOCK_FILE).exists():
        return False
    try:
        os.close(_lock(folder / _LOCK_FILE))
    except FolderInUse:
        return True
    return False


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of ``folder`` while the block lasts; where the file system has no locks, nobody is.

    Raises:
        FolderInUse: another sweep is at work there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with holding(folder):
        ...     try:
        ...         holding(folder).__enter__()
        ...     except FolderInUse as error:
        ...         print(str(error).partition(": ")[2])
        expected a folder in which no other process is at work
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder / "sweep.lock")
    try:
        yield
    finally:
        os.close(lock)


def _lock(path: Path) -> int:
    """An open file that is locked: for whoever inherits it, until the last of them is gone."""
    try:
        import fcntl
    except ImportError:
        raise OSError("sweeps need a POSIX system, such as Linux or macOS") from None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return descriptor  # a file system without locks
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise FolderInUse(f"{path.parent}: expected a folder in which no other process is at work") from None
        raise
    return descriptor
