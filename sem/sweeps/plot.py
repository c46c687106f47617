"""Loss curves of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sem.files import save_figure
from sem.sweeps.results import RunResult

MOST_PANELS = 24


def plot_curves(arms: Sequence[Sequence[RunResult]], target: Path) -> bool:
    """Draw a panel per arm, on common axes: all seeds' training losses (thin) and validation losses (thick).

    Arms past the first :data:`MOST_PANELS` are left out.

    Returns:
        Whether there was anything to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = [runs for runs in arms if any(run.loss or run.validation for run in runs)][:MOST_PANELS]
    if not shown:
        return False

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(1.2 + 3.4 * columns, 0.8 + 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, runs in zip(grid.flat, shown, strict=False):
        for number, run in enumerate(runs):
            colour = f"C{number % 10}"
            if run.loss:
                axes.plot(*zip(*run.loss, strict=True), color=colour, linewidth=0.6, alpha=0.5)
            if run.validation:
                marker = "." if len(run.validation) < 30 else None
                label = f"seed {run.seed}"
                axes.plot(*zip(*run.validation, strict=True), color=colour, linewidth=1.6, marker=marker, label=label)
        axes.set(title=runs[0].arm)
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("step")
    for axes in grid[:, 0]:
        axes.set_ylabel("loss")
    if grid[0][0].get_legend_handles_labels()[0]:
        grid[0][0].legend()
    save_figure(figure, target, dpi=110)
    return True
