"""Running benchmarks on a GPU: whether there is one, what it is, and a clock that waits for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import torch

from sem import native
from sem.bench.peaks import Peaks, device_clock, measure_device_peaks
from sem.bench.registry import Benchmark
from sem.bench.runner import Line, run


def missing(device: str) -> str | None:
    """Why nothing can be measured on ``device``, or None."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no NVIDIA GPU on this machine"
    try:
        native.backend(device)
    except (RuntimeError, ImportError) as error:
        return str(error)
    return None


def described(device: str) -> dict[str, Any]:
    """What figures of ``device`` depend on beside the machine; nothing for the CPU."""
    if device == "cpu":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "gpu_memory_mib": properties.total_memory // 2**20,
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def measure_all(device: str, chosen: Sequence[Benchmark], repeats: int) -> tuple[list[Line], Peaks]:
    """The lines of ``chosen``, timed by a clock that waits for the device, in float32 without TF32; and its rates."""
    where = torch.device(device, torch.get_device_module(device).current_device())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        peaks = measure_device_peaks(where)
        lines = []
        for benchmark in chosen:
            lines += run(benchmark, repeats, device_clock(where))
            torch.get_device_module(device).empty_cache()
        return lines, peaks.best(measure_device_peaks(where))
    finally:
        torch.set_float32_matmul_precision(before)


def _driver() -> str | None:
    """The driver's version, where its own tool is there to ask."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    ask = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    lines = answer.stdout.split("\n")
    return lines[0].strip() or None if answer.returncode == 0 else None
