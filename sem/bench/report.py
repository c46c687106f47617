"""The table, the JSON document and the plot of a run."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sem import __version__, native
from sem.bench.peaks import Bound, Peaks
from sem.bench.registry import Check, Comparison
from sem.bench.runner import Line
from sem.bench.timing import Spread
from sem.files import save_figure

SCHEMA = 2
WIDTH_WITHOUT_TERMINAL = 180


def machine() -> dict[str, Any]:
    """What the figures depend on: software and processor."""
    return {
        "sem": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "simd": native.capabilities().get("simd"),
    }


def title_of(where: dict[str, Any], threads: int) -> str:
    """What ran the benchmarks, in a few words."""
    if "gpu" in where:
        return f"{where['gpu']}, driver {where['driver'] or 'unknown'}, CUDA {where['cuda']}"
    return f"{where['processor']}, {where['simd']}, {threads} thread(s)"


def load_average() -> float | None:
    """Processes that wanted a core, averaged over the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def document(lines: Sequence[Line], peaks: Peaks, where: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The run as plain data. ``ratio`` and times (seconds) are null where a result was wrong."""
    data = [_line_data(line, peaks) for line in lines]
    return {"schema": SCHEMA, "machine": {**where, "peaks": vars(peaks)}, "settings": settings, "lines": data}


def print_table(
    lines: Sequence[Line], peaks: Peaks, where: dict[str, Any], settings: dict[str, Any], console: Console
) -> None:
    """Print the lines with the machine they were measured on, the bounds from its ``peaks``, and every check that
    failed.

    ``where`` is :func:`machine` and the load before and after, ``settings`` says ``threads`` and ``repeats``."""
    shared = f"; {peaks.local_bytes / 1e9:.0f} GB/s from shared memory follow" if peaks.local_bytes else ""
    console.print(
        f"sem {where['sem']}, torch {where['torch']}, {title_of(where, settings['threads'])}, "
        f"load {shown_load(where['load_before'])} before and "
        f"{shown_load(where['load_after'])} after; medians of {settings['repeats']} interleaved rounds; "
        f"bounds from {peaks.bytes / 1e9:.1f} GB/s and {peaks.multiply_adds / 1e9:.1f} G multiply-adds/s, measured"
        f"{shared}"
    )
    table = Table()
    for title in (
        "benchmark",
        "timed",
        "against",
        "ms",
        "against ms",
        "ratio",
        "least to largest",
        "bar",
        "",
        "bound ms",
        "reached",
    ):
        table.add_column(title, overflow="fold")
    for line in lines:
        comparison = line.comparison
        subject, peer = _milliseconds(line.subject_time), _milliseconds(line.peer_time)
        row = [line.benchmark, comparison.subject.name, comparison.peer.name, subject, peer, *_ratio(line)]
        table.add_row(*row, _bar(comparison), _verdict(line), *_reached(line, peaks), style=_style(line))
    console.print(table)
    for line in lines:
        for name, check in _failed(line):
            text = f"WRONG {line.benchmark}, {name}: {check.name} has relative error {check.error:.2e}"
            console.print(f"{text}, allowed {check.limit:.2e}", style="bold red")


def console_for(width: int | None = None) -> Console:
    """Standard output, wide enough for the table where it is not a terminal."""
    console = Console(width=width)
    return console if width or console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def plot(lines: Sequence[Line], path: Path, title: str) -> None:
    """One bar per correct line, log axis: how many times faster than its peer, with the spread and its bar."""
    from matplotlib.figure import Figure

    drawn = [(line, line.ratio) for line in lines if line.ratio is not None]
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    for place, (line, ratio) in enumerate(drawn):
        values = (ratio.min, ratio.median, ratio.max)
        low, middle, high = sorted(_speed_up(line.comparison, value) for value in values)
        axes.barh(place, middle, xerr=[[middle - low], [high - middle]], capsize=3, color=_color(line))
        if line.comparison.bar is not None:
            bar = _speed_up(line.comparison, line.comparison.bar)
            axes.plot([bar, bar], [place - 0.45, place + 0.45], color="black", linewidth=2)
    axes.set_yticks(range(len(drawn)), [_label(line) for line, _ in drawn])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("time of the peer over time of the operator (black: bar)")
    axes.set_title(title, fontsize="medium")
    save_figure(figure, path, dpi=150)


def line_bound(line: Line, peaks: Peaks) -> Bound | None:
    """The least time for what the line's subject does, where that is known."""
    work = line.comparison.subject.work
    return None if work is None else peaks.bound(work)


def _reached(line: Line, peaks: Peaks) -> tuple[str, str]:
    """The bound, and the share of it that was reached."""
    bound = line_bound(line, peaks)
    if bound is None or line.subject_time is None:
        return "", ""
    return f"{1e3 * bound.seconds:.2f} {bound.by}", f"{bound.seconds / line.subject_time.median:.0%}"


def _line_data(line: Line, peaks: Peaks) -> dict[str, Any]:
    comparison = line.comparison
    bound = line_bound(line, peaks)
    return {
        "benchmark": line.benchmark,
        "subject": comparison.subject.name,
        "peer": comparison.peer.name,
        "kind": comparison.kind,
        "correct": line.correct,
        "ratio": _spread_data(line.ratio),
        "subject_seconds": _spread_data(line.subject_time),
        "peer_seconds": _spread_data(line.peer_time),
        "bar": comparison.bar,
        "met": line.met,
        "bound_seconds": None if bound is None else bound.seconds,
        "bound_by": None if bound is None else bound.by,
        "subject_checks": [_check_data(check) for check in line.subject_checks],
        "peer_checks": [_check_data(check) for check in line.peer_checks],
    }


def _spread_data(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {"median": spread.median, "min": spread.min, "max": spread.max}


def _check_data(check: Check) -> dict[str, Any]:
    error = check.error if math.isfinite(check.error) else None
    return {"output": check.name, "error": error, "limit": check.limit, "passed": check.passed}


def _failed(line: Line) -> list[tuple[str, Check]]:
    comparison = line.comparison
    named = [(comparison.subject.name, line.subject_checks), (comparison.peer.name, line.peer_checks)]
    return [(name, check) for name, checks in named for check in checks if not check.passed]


def _milliseconds(spread: Spread | None) -> str:
    return "" if spread is None else f"{1e3 * spread.median:.2f}"


def _ratio(line: Line) -> tuple[str, str]:
    if line.ratio is None:
        return "", ""
    unit = "faster" if line.comparison.kind == "speed-up" else "the time"
    return f"{line.ratio.median:.2f}x {unit}", f"{line.ratio.min:.2f} to {line.ratio.max:.2f}"


def _bar(comparison: Comparison) -> str:
    if comparison.bar is None:
        return ""
    return f"{'>=' if comparison.kind == 'speed-up' else '<='} {comparison.bar:g}"


def _verdict(line: Line) -> str:
    if not line.correct:
        return "WRONG"
    return {None: "", True: "met", False: "missed"}[line.met]


def _style(line: Line) -> str | None:
    return {"WRONG": "bold red", "missed": "yellow"}.get(_verdict(line))


def _color(line: Line) -> str:
    return {"met": "tab:green", "missed": "tab:orange"}.get(_verdict(line), "tab:blue")


def _label(line: Line) -> str:
    return f"{line.benchmark}, {line.comparison.subject.name}\nagainst {line.comparison.peer.name}"


def _speed_up(comparison: Comparison, value: float) -> float:
    return value if comparison.kind == "speed-up" else 1 / value


def shown_load(value: float | None) -> str:
    """Two decimals, or ``unknown`` where the system does not say."""
    return "unknown" if value is None else f"{value:.2f}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
