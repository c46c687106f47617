"""Finds and loads the compiled back ends. Nothing is imported that is not there and asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # noqa: F401  (first, so that both share one OpenMP runtime and its thread pool)

_MODULES = {"cpu": "_cpu", "cuda": "_cuda", "xpu": "_xpu"}
_PACKAGE = Path(__file__).parents[1]
# By path: what an index has are wheels, built without these.
_REBUILD = "in sem's source folder: pip install --force-reinstall --no-deps ."
_HOW_TO_GET = {
    "cpu": f"reinstall it with a C++20 compiler present, {_REBUILD}",
    "cuda": f"rebuild it where nvcc and an NVIDIA GPU are, {_REBUILD} (SEM_CUDA=ON builds without a GPU)",
    "xpu": f"rebuild it where intel-sycl-rt is installed, {_REBUILD}",
}


def _how_to_get(device_type: str) -> str:
    sources = _PACKAGE.parent
    if device_type == "cpu" and (sources / "CMakeLists.txt").exists():
        return (
            f"the files imported are the sources in {sources}, which no kernels were built into; start Python in "
            f"another folder to import the installed package, or install it first: pip install {sources}"
        )
    return _HOW_TO_GET[device_type]


@cache
def backend(device_type: str) -> ModuleType:
    """The compiled module for ``'cpu'``, ``'cuda'`` or ``'xpu'``; RuntimeError with the remedy if it is not built."""
    if device_type not in _MODULES:
        raise RuntimeError(f"sem has no native kernels for device type {device_type!r}; use cpu, cuda or xpu")
    if not is_built(device_type):
        raise RuntimeError(
            f"this build of sem has no {device_type} kernels; {_how_to_get(device_type)}"
            f"{'' if device_type == 'cpu' else ', or move the tensors to the CPU'}"
        )
    return _load_xpu() if device_type == "xpu" else importlib.import_module(f"{__name__}.{_MODULES[device_type]}")


def _load_xpu() -> ModuleType:
    # Kernels are compiled at their first use on a device and kept by SYCL in the user's cache folder; a user's own
    # setting of the variable wins.
    os.environ.setdefault("SYCL_CACHE_PERSISTENT", "1")
    loaded = _loaded_sycl()
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES['xpu']}")
    except ImportError as error:
        raise RuntimeError(
            f"the xpu kernels of sem need the SYCL runtime that they were built against ({error}); rebuild sem in this "
            f"environment, {_REBUILD}"
        ) from error
    require_same_sycl(module.sycl_major, loaded)
    module.set_sources(str(Path(str(module.__file__)).with_name("sycl")))
    return module


def require_same_sycl(built: int, loaded: set[int]) -> None:
    """Raise unless torch runs on the SYCL runtime that the kernels were built against: two in one process cannot share
    a queue.

    Args:
        built: major version of ``libsycl`` that the kernels need.
        loaded: those that torch has brought; empty for a torch without XPU support.

    Raises:
        RuntimeError: they differ.
    """
    if loaded - {built}:
        theirs = ", ".join(f"libsycl.so.{major}" for major in sorted(loaded))
        raise RuntimeError(
            f"sem's xpu kernels were built against libsycl.so.{built}, torch {torch.__version__} runs on {theirs}: "
            "install the intel-sycl-rt that this torch asks for and rebuild sem beside it, in sem's source folder: "
            "pip install --force-reinstall --no-deps --no-build-isolation ."
        )


def _loaded_sycl() -> set[int]:
    """Major versions of the SYCL runtimes in this process, where the system tells."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return set()
    return {int(major) for major in re.findall(r"/libsycl\.so\.(\d+)", mapped)}


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
        if not report["openmp"]:
            report["threads"] = 1  # whatever torch has: the kernels know no other
    if built["xpu"]:
        report["SYCL kernels compiled"] = _sycl_compilation()
    return report


def _sycl_compilation() -> str:
    try:
        module = backend("xpu")
        return f"{module.compilation}, libsycl.so.{module.sycl_major}"
    except RuntimeError as error:
        return str(error)
