"""Python processes that import what tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent


def modules_path() -> str:
    """PYTHONPATH for a process that imports modules of these tests."""
    return os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a Python script that may import these modules in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = modules_path()
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
