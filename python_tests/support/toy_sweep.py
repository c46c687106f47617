"""Sweeps of the toy program."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from processes import start
from rich.console import Console

from sem.sweeps import Arm, Budget, Experiment, Figure, StopLimits, Sweep

PROGRAM = Path(__file__).with_name("toy_program.py")
ERROR = Figure("error", "test error", floor="floor")
SCORE = Figure("score", "score", "higher")


def experiment(**changes) -> Experiment:
    def settings(arm: Arm, seed: int) -> dict:
        values = dict(override.split("=", 1) for override in arm.overrides)
        if unknown := [key for key in values if not key.startswith("toy.")]:
            raise ValueError(f"{unknown[0]}: unknown key")
        return {"overrides": values, "seed": seed}

    def command(arm: Arm, seed: int, folder: Path) -> list[str]:
        return [sys.executable, "-I", "-S", str(PROGRAM), str(folder), str(seed), *arm.overrides]

    parts = {"command": command, "settings": settings, "figures": (ERROR, SCORE), "collapsed": "collapsed"}
    return Experiment(**(parts | {"reserved": {"toy.steps": "every arm has the same budget"}} | changes))


def sweep(output: Path, *arms: Arm, seeds=(0,), **options) -> Sweep:
    options = {"limits": StopLimits(interrupt=5.0, terminate=1.0), "budget": Budget(steps=8)} | options
    return Sweep(**{"experiment": experiment(), "arms": arms, "seeds": seeds, "output": output} | options)


def quiet() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=200)


@contextlib.contextmanager
def sweep_at_work(script: str, *arguments: object, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[str]]:
    """A sweep in a process of its own, as soon as it is ``ready``; its runs are not left behind."""
    process = start(script, *map(str, arguments))
    try:
        wait_until(lambda: ready() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()
        for path in Path(str(arguments[0])).glob("runs/*/*/manifest.json"):
            record = json.loads(path.read_text())
            if record["state"] == "running":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(record["pid"], signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def starts(output: Path, arm: str, seed: int = 0) -> list[int]:
    """The steps at which each start of a run began."""
    path = output / "runs" / arm / f"seed_{seed}" / "starts.txt"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def manifest(output: Path, arm: str, seed: int = 0) -> dict:
    return json.loads((output / "runs" / arm / f"seed_{seed}" / "manifest.json").read_text())
