"""Costs against sizes, both on logarithmic axes, with the bounds drawn in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sem.bench.peaks import Peaks
from sem.bench.registry import Point
from sem.bench.report import line_bound
from sem.bench.runner import Line
from sem.bench.timing import Spread
from sem.files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(lines: Sequence[Line], points: Mapping[str, Point | None], peaks: Peaks, path: Path, title: str) -> None:
    """A panel for each operator and axis: seconds of the operator and its peer, with their spread, and the bound.

    Lines with a wrong result, and those without a point, are left out.
    """
    from matplotlib.figure import Figure

    placed = [(point, line) for line in lines if (point := points.get(line.benchmark)) and line.subject_time]
    operators = list(dict.fromkeys(point.operator for point, _ in placed))
    axes_names = list(dict.fromkeys(point.axis for point, _ in placed))
    # one column for each operator; of a single one the panels lie side by side
    alone = len(operators) == 1
    rows, columns = max(1, len(axes_names)), max(1, len(operators))
    rows, columns = (columns, rows) if alone else (rows, columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, axis in enumerate(axes_names):
        for column, operator in enumerate(operators):
            panel = grid[column][row] if alone else grid[row][column]
            here = {p.size: line for p, line in placed if (p.operator, p.axis) == (operator, axis)}
            if here:
                _panel(panel, here, peaks)
                panel.set(xlabel=axis, ylabel="seconds", title=operator)
            else:
                panel.set_axis_off()
    figure.suptitle(title, fontsize="medium")
    save_figure(figure, path, dpi=130)


def _panel(axes: Axes, lines: Mapping[float, Line], peaks: Peaks) -> None:
    comparison = next(iter(lines.values())).comparison
    _times(axes, comparison.subject.name, {size: line.subject_time for size, line in lines.items()})
    _times(axes, comparison.peer.name, {size: line.peer_time for size, line in lines.items()})
    bounds = [(size, bound.seconds) for size, line in lines.items() if (bound := line_bound(line, peaks)) is not None]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), "k--", linewidth=1, label="bound")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(list(lines), [f"{size:.8g}" for size in lines])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.tick_params(axis="x", which="major", labelsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _times(axes: Axes, name: str, times: Mapping[float, Spread | None]) -> None:
    known = {size: spread for size, spread in times.items() if spread is not None}
    medians = [spread.median for spread in known.values()]
    below = [spread.median - spread.min for spread in known.values()]
    above = [spread.max - spread.median for spread in known.values()]
    axes.errorbar(list(known), medians, yerr=[below, above], capsize=2, marker=".", label=name)
