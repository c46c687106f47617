"""One writer for a run's folder: a lock of the operating system's, which it takes back from whoever dies."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from sem.run_names import LOCK_FILE

_HELD: set[tuple[int, str]] = set()  # (process, folder): locks of files know processes only


class RunInUse(ValueError):
    """Another process trains in this folder."""


class RunLock:
    """Holds a run's folder while the block lasts, and says in ``run.lock`` who does.

    It is a record lock, which ends with the process that has it, however that ends, and which children do not inherit.
    Where a file system has no locks (``supported`` is False then) nobody is kept out.

    Args:
        folder: made if there is none.

    Raises:
        RunInUse: another process holds it, or this one does already.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with RunLock(folder):
        ...     try:
        ...         RunLock(folder).__enter__()
        ...     except RunInUse as error:
        ...         print(str(error).partition(", this one")[2])
         is held by this process
    """

    supported = True

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LOCK_FILE
        if self._key in _HELD:  # without a look at the file: closing it would give the lock away
            raise RunInUse(self._refusal("this process"))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise RunInUse(self._refusal(_owner(path))) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
            self.supported = False
            return self
        self._descriptor = descriptor
        _HELD.add(self._key)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is None:
            return
        os.ftruncate(self._descriptor, 0)
        _HELD.discard(self._key)
        os.close(self._descriptor)  # which gives the lock back
        self._descriptor = None

    @property
    def _key(self) -> tuple[int, str]:
        return os.getpid(), str(self.folder.resolve())

    def _refusal(self, owner: str) -> str:
        where = f"training.output_dir = {str(self.folder)!r}"
        return f"{where}: expected a folder in which nobody trains, this one is held by {owner}"


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


if os.name == "posix":
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

else:
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # past what is read by those who are refused
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
