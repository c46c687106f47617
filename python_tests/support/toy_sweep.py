"""Sweeps of the toy program."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

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


def starts(output: Path, arm: str, seed: int = 0) -> list[int]:
    """The steps at which each start of a run began."""
    path = output / "runs" / arm / f"seed_{seed}" / "starts.txt"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def manifest(output: Path, arm: str, seed: int = 0) -> dict:
    return json.loads((output / "runs" / arm / f"seed_{seed}" / "manifest.json").read_text())
