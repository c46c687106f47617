"""Several texts drawn by one thread, a token each in turn, and a bounded queue in front of them.

One thread, because the model's kernels use all cores anyway; in turn, so that a short text need not wait for the end of
a long one. Which others are drawn beside a text does not change what it draws.
"""

from __future__ import annotations

import threading
from collections import deque

import torch

from sem.serving.completion import Completion


class Busy(RuntimeError):
    """All places are taken, those to wait in too."""


class Scheduler:
    """Advances completions until they end.

    Args:
        concurrent: how many at the same time.
        waiting: how many more may wait for their turn.
    """

    def __init__(self, concurrent: int, waiting: int) -> None:
        self._concurrent = concurrent
        self._places = concurrent + waiting
        self._changed = threading.Condition()
        self._waiting: deque[Completion] = deque()
        self._active: deque[Completion] = deque()
        self._closed = False
        self._torch_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="sem-serve", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """How many are being drawn."""
        return len(self._active)

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether it still does anything."""
        return self._thread.is_alive() and not self._closed

    def submit(self, completion: Completion) -> None:
        """Have ``completion`` drawn, as soon as there is room.

        Raises:
            Busy: there is no place to wait left.
            RuntimeError: the scheduler is closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the server is stopping")
            if len(self._active) + len(self._waiting) >= self._places:
                raise Busy(f"expected at most {self._places} requests at the same time")
            self._waiting.append(completion)
            self._changed.notify()

    def withdraw(self, completion: Completion) -> None:
        """Nobody waits for ``completion`` any more: its place is free at once, or after the token being drawn."""
        completion.cancel()
        with self._changed:
            if completion in self._waiting:
                self._waiting.remove(completion)

    def close(self, timeout: float = 5.0) -> None:
        """End all texts with an error and stop; returns when the token being drawn is done, or after ``timeout``
        seconds."""
        with self._changed:
            self._closed = True
            ended = [*self._active, *self._waiting]
            self._waiting.clear()
            self._changed.notify()
        for completion in ended:
            completion.fail(RuntimeError("the server is stopping"))
            completion.cancel()
        self._thread.join(timeout)

    def _run(self) -> None:
        torch.set_num_threads(self._torch_threads)  # a new thread begins with the library's own choice
        while self._take():
            completion = self._active[0]
            more = completion.advance()
            with self._changed:
                self._active.popleft()
                if more:
                    self._active.append(completion)
            if not more:
                completion.close()

    def _take(self) -> bool:
        """Fill the places of those that ended; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._active or self._waiting)
            while not self._closed and self._waiting and len(self._active) < self._concurrent:
                self._active.append(self._waiting.popleft())
            return not self._closed
