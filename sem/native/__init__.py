"""Finds and loads the compiled back ends. Nothing is imported that is not there and asked for."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

import torch  # noqa: F401  (first, so that both share one OpenMP runtime and its thread pool)

_MODULES = {"cpu": "_cpu", "cuda": "_cuda", "xpu": "_xpu"}
_HOW_TO_GET = {
    "cpu": "reinstall it with a C++20 compiler present: pip install --force-reinstall --no-deps sem",
    "cuda": "rebuild it where nvcc is on the PATH: pip install --force-reinstall --no-deps sem",
    "xpu": 'install the XPU extra: pip install "sem[xpu]"',
}


@cache
def backend(device_type: str) -> ModuleType:
    """The compiled module for ``'cpu'``, ``'cuda'`` or ``'xpu'``; RuntimeError with the remedy if it is not built."""
    if device_type not in _MODULES:
        raise RuntimeError(f"sem has no native kernels for device type {device_type!r}; use cpu, cuda or xpu")
    if not is_built(device_type):
        raise RuntimeError(
            f"this build of sem has no {device_type} kernels; {_HOW_TO_GET[device_type]}, "
            "or move the tensors to the CPU"
        )
    return importlib.import_module(f"{__name__}.{_MODULES[device_type]}")


def is_built(device_type: str) -> bool:
    """Whether the compiled module for this device type is installed."""
    return importlib.util.find_spec(f"{__name__}.{_MODULES[device_type]}") is not None


def capabilities() -> dict[str, Any]:
    """What this installation can run: back ends built, the CPU's vector level, threads."""
    built = {name: is_built(name) for name in _MODULES}
    report: dict[str, Any] = {"built": built, "threads": torch.get_num_threads()}
    if built["cpu"]:
        report["simd"] = backend("cpu").simd_level()
        report["openmp"] = backend("cpu").openmp
    return report
