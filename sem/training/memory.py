"""Peak memory of a run."""

from __future__ import annotations

import sys

import torch

MIB = 2.0**20


def peak_memory_mib() -> float:
    """Largest memory use so far in MiB: of the accelerator where one is in use, else of this process.

    NaN on systems that do not tell (Windows without an accelerator).
    """
    for backend in (torch.cuda, torch.xpu):
        if backend.is_available() and (peak := backend.max_memory_allocated()):
            return peak / MIB
    if sys.platform == "win32":
        return float("nan")
    import resource

    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
