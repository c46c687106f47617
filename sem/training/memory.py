"""Memory of a run: its peak, and what the C library does with freed blocks."""

from __future__ import annotations

import ctypes
import sys

import torch

MIB = 2.0**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 1 << 25


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


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocations, where the C library is glibc; tells whether it is.

    By default glibc hands large blocks back to the system when they are freed. A training step on the CPU allocates
    the same blocks each time, so thousands of pages would be mapped and zeroed anew in every step. What the process
    holds at its peak it holds to its end. Meant for commands that own their process.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
