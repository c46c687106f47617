"""Loss curves of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sem.files import save_figure
from sem.sweeps.results import RunResult

MOST_PANELS = 24
SHOWN_SHARE = 0.98
"""Of all losses, those within this share span the axis: one spike would flatten all curves."""
_WIDE = 5.0


def plot_curves(arms: Sequence[Sequence[RunResult]], target: Path) -> bool:
    """Draw a panel per arm, on common axes: all seeds' training losses (thin) and validation losses (thick).

    Losses that range over more than a factor of five have a logarithmic axis. A panel says how many of its losses lie
    above the picture. Arms past the first :data:`MOST_PANELS` are left out.

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
    low, top = _range([loss for runs in shown for loss in _losses(runs)])
    if low > 0 and top > _WIDE * low:
        grid[0][0].set_yscale("log")
    grid[0][0].set_ylim(low, top)
    for axes, runs in zip(grid.flat, shown, strict=False):
        for number, run in enumerate(runs):
            colour = f"C{number % 10}"
            if run.loss:
                axes.plot(*zip(*run.loss, strict=True), color=colour, linewidth=0.6, alpha=0.5)
            if run.validation:
                marker = "." if len(run.validation) < 30 else None
                label = f"seed {run.seed}"
                axes.plot(*zip(*run.validation, strict=True), color=colour, linewidth=1.6, marker=marker, label=label)
        above = sum(not loss <= top for loss in _losses(runs))
        axes.set(title=runs[0].arm + (f" ({above} above)" if above else ""))
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


def _losses(runs: Sequence[RunResult]) -> list[float]:
    return [loss for run in runs for _, loss in (*run.loss, *run.validation)]


def _range(losses: Sequence[float]) -> tuple[float, float]:
    """What the axis spans: the finite ``losses`` but for the largest, with some room."""
    finite = sorted(filter(math.isfinite, losses)) or [0.0, 1.0]
    low, top = finite[0], finite[math.ceil(SHOWN_SHARE * len(finite)) - 1]
    room = 0.05 * (top - low) or 1.0
    return (low * 0.95 if low > 0 else low - room), top + room
