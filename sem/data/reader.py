"""A process of its own that runs an iterator ahead of whoever takes the items."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from sem.data.source import DataSourceError

_AHEAD = 16
_SECONDS_TO_END = 5.0
_BEAT = 1.0  # seconds after which a process that has nothing to send says that it lives
_SILENCE = 60.0  # seconds after which one that says nothing is given up
_PASSED_ON = {kind.__name__: kind for kind in (ValueError, ImportError, DataSourceError)}
_ITEM, _ERROR, _END, _ALIVE = "item", "error", "end", "alive"

Item = TypeVar("Item")


class ReaderDied(RuntimeError):
    """A reader process ended before it was told to, or fell silent."""


class ReaderProcess(Generic[Item]):
    """Iterates ``items`` in a process of its own, up to 16 items ahead.

    The process leaves Ctrl-C to its parent, and ends when it is closed or its parent ends, however that happens.

    Args:
        items: pickled, and iterated there.
        name: what it reads, for messages.

    Example:
        >>> reader = ReaderProcess([1, 2, 3], "numbers")
        >>> next(reader), next(reader)
        (1, 2)
        >>> reader.close()
    """

    def __init__(self, items: Iterable[Item], name: str) -> None:
        # Not forked: threads of torch, tokenizers and pyarrow do not survive that.
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_serve, args=(theirs, items), name=f"reader of {name}", daemon=True)
        with _blocking_ctrl_c():
            self.process.start()
        # The process holds the only writing end now, so its death ends the pipe, and a wait for an item with it.
        theirs.close()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        """The next item.

        Raises:
            ReaderDied: the process was killed or crashed, or has been silent for a minute: it is stopped, or starves.
            ValueError, ImportError, DataSourceError: raised by the iterator.
            RuntimeError: any other error of the iterator, with its traceback.
        """
        kind: str = _ALIVE
        content: Any = None
        while kind == _ALIVE:
            try:
                if not self._connection.poll(_SILENCE):
                    self.close()
                    raise ReaderDied(f"the process that reads {self.name} said nothing for {_SILENCE:.0f} seconds")
                kind, content = self._connection.recv()
            except (EOFError, OSError):
                raise ReaderDied(self._obituary()) from None
        if kind == _ITEM:
            return content
        self.close()
        if kind == _END:
            raise StopIteration
        name, message, trace = content
        if name in _PASSED_ON:
            raise _PASSED_ON[name](message)
        raise RuntimeError(f"the process that reads {self.name} failed:\n{trace}")

    def close(self) -> None:
        """End the process; nothing can be read any more."""
        self._connection.close()
        self.process.terminate()
        self.process.join(_SECONDS_TO_END)
        if self.process.exitcode is None:  # a stopped one hears nothing else
            self.process.kill()
            self.process.join(_SECONDS_TO_END)

    def _obituary(self) -> str:
        self.process.join(_SECONDS_TO_END)
        code = self.process.exitcode
        if code is None:
            cause = "closed its connection"
        elif code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
        else:
            cause = f"ended with status {code}"
        advice = "; was it out of memory? data.shuffle_buffer and data.num_workers lower what readers take"
        return f"the process that reads {self.name} {cause}{advice if code == -signal.SIGKILL else ''}"


@contextlib.contextmanager
def _blocking_ctrl_c() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, not even before they run any Python; this one sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, items: Iterable[Any]) -> None:
    """The process: a thread makes items, this one sends them and watches the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(_AHEAD)
    threading.Thread(target=_produce, args=(items, ready), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        while parent is not None and parent.is_alive():
            try:
                kind, content = ready.get(timeout=_BEAT)
            except queue.Empty:
                kind, content = _ALIVE, None
            connection.send((kind, content))
            if kind in (_ERROR, _END):
                break
    connection.close()
    # Not sys.exit: it would wait for threads that may be in the middle of a download.
    os._exit(0)


def _produce(items: Iterable[Any], ready: queue.Queue[tuple[str, Any]]) -> None:
    try:
        for item in items:
            ready.put((_ITEM, item))
        ready.put((_END, None))
    except Exception as error:
        kind = next((name for name, passed in _PASSED_ON.items() if isinstance(error, passed)), "")
        ready.put((_ERROR, (kind, str(error), traceback.format_exc())))
