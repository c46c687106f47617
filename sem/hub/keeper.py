"""Running a training command while the hub keeps a copy of its run.

The copying is a process of its own: it is the only one that uploads, however many train, and neither a slow nor a
failing upload can hold up or end the training.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from sem.hub.mirror import RunMirror
from sem.huggingface import HubError

FAILED = 1


@dataclass(kw_only=True)
class Pace:
    """How often what is looked at, in seconds.

    Attributes:
        poll: between two looks at the folder.
        retry: before the second attempt after a failed upload; it doubles with each further failure.
        longest_retry: most seconds between two attempts.
        last_attempts: attempts at the upload that ends the run.
        patience: before it is told that the command has no run in the folder.
    """

    poll: float = 5.0
    retry: float = 30.0
    longest_retry: float = 600.0
    last_attempts: int = 6
    patience: float = 300.0


@dataclass
class Keeper:
    """Runs ``command`` and mirrors its run's folder: fetched before, uploaded at every checkpoint and at the end.

    SIGINT and SIGTERM are handed on to the command, whose last state is uploaded before this process ends.
    """

    mirror: RunMirror
    pace: Pace = field(default_factory=Pace)

    def run(self, command: Sequence[str]) -> int:
        """The command's exit status, or 1 if its last state could not be uploaded, or it left no run in the folder.

        Raises:
            HubError: the repository could not be made or the run in it not fetched; the command was not started.
            OSError: the command cannot be started.
        """
        if self.mirror.restore():
            _say(f"fetched the run after {self.mirror.newest()} from {self.mirror.repo}")
        child: subprocess.Popen[bytes] | None = None
        early: list[int] = []

        def hand_on(number: int, frame: FrameType | None) -> None:
            if child is None:
                early.append(number)
            else:
                child.send_signal(number)

        # before there is a command: a signal that found us without would end us and leave the command alone
        before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            known = self.mirror.checkpoints()  # before there is a command that could save the first
            # a session of its own: Ctrl-C in a terminal reaches it once, through us
            child = subprocess.Popen(command, start_new_session=True)
            for number in early:
                child.send_signal(number)
            status = self._watch(child, known)
            there = self.mirror.folder.is_dir()
            if not there and not status:
                _say(f"nothing is kept: {self._nothing_there()}")
            uploaded = self._upload_last() if there else bool(status)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if status:
            return status if status > 0 else 128 - status
        return 0 if uploaded else FAILED

    def _watch(self, child: subprocess.Popen[bytes], uploaded: frozenset[tuple[str, int]]) -> int:
        delay, not_before = self.pace.retry, time.monotonic()
        told_after = not_before + self.pace.patience
        while True:
            try:
                return child.wait(self.pace.poll)
            except subprocess.TimeoutExpired:
                present = self.mirror.checkpoints()
            if time.monotonic() > told_after:
                if not self.mirror.folder.is_dir():
                    _say(f"nothing is kept yet: {self._nothing_there()}")
                told_after = math.inf
            if present == uploaded or time.monotonic() < not_before:
                continue
            if self._upload():
                uploaded, delay = present, self.pace.retry
            else:
                not_before = time.monotonic() + delay
                _say(f"training goes on; the next attempt in {delay:.0f} seconds or later")
                delay = min(2 * delay, self.pace.longest_retry)

    def _nothing_there(self) -> str:
        return f"there is no folder {self.mirror.folder}; is it the command's training.output_dir?"

    def _upload_last(self) -> bool:
        delay = self.pace.retry
        for attempt in range(1, self.pace.last_attempts + 1):
            if self._upload():
                _say(f"the run is in {self.mirror.repo}")
                return True
            if attempt < self.pace.last_attempts:
                time.sleep(delay)
                delay = min(2 * delay, self.pace.longest_retry)
        _say(f"the run is not in {self.mirror.repo}: gave up after {self.pace.last_attempts} attempts")
        return False

    def _upload(self) -> bool:
        try:
            self.mirror.upload()
        except (HubError, OSError, RuntimeError, ValueError) as error:  # whatever it is, the training goes on
            _say(str(error))
            return False
        return True


def _say(text: str) -> None:
    print(f"sem.hub: {text}", file=sys.stderr, flush=True)
