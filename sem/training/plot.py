"""Curves of a run, from its table of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from sem.training.logging import read_csv

PANELS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("bits per byte", ("bits_per_byte", "val_bits_per_byte"), False),
    ("loss", ("loss", "val_loss"), False),
    ("learning rate", ("learning_rate",), False),
    ("gradient norm", ("grad_norm",), True),
    ("unitary divergence", ("unitary_divergence",), False),
    ("solver: residual, unitarity", ("cg_residual", "unitarity_deviation"), True),
    ("phase entropy", ("phase_entropy_before", "phase_entropy_after"), False),
    ("sparsity, coherence", ("sdr_sparsity", "phase_coherence"), False),
    ("throughput", ("tokens_per_second",), False),
)
"""Title, figures and whether the axis is logarithmic; a panel without figures is left out."""

BASELINE_STYLES = ("--", "-.", ":")


def plot_curves(
    table: str | Path, target: str | Path, baselines: Mapping[str, float] | None = None, title: str = ""
) -> Path:
    """Draw the curves of ``metrics.csv`` into a picture.

    Args:
        table: a :class:`~sem.training.logging.CsvLog` table.
        target: picture to write; its suffix gives the format.
        baselines: bits per byte of other models, drawn as lines beside the validation curve.
        title: heading.

    Raises:
        ValueError: the table is missing, no table or without a figure to draw.
        ImportError: matplotlib is not installed.
    """
    rows = read_csv(table)
    measured = set().union(*rows) if rows else set()
    panels = [
        (name, present, log)
        for name, figures, log in PANELS
        if (present := [figure for figure in figures if figure in measured])
    ]
    if not panels:
        raise ValueError(f"{table}: expected at least one figure to draw, got {sorted(measured)}")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.2 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (name, present, log) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, index + 1)
        for metric in present:
            steps, values = _curve(rows, metric)
            axes.plot(steps, values, label=metric, marker="." if len(steps) < 30 else None)
        if name == "bits per byte":
            for (label, value), style in zip((baselines or {}).items(), cycle(BASELINE_STYLES), strict=False):
                axes.axhline(value, linestyle=style, linewidth=1.0, color="0.4", label=label)
        if log:
            axes.set_yscale("log")
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend()
    if title:
        figure.suptitle(title)
    target = Path(target)
    figure.savefig(target, dpi=110)
    return target


def _curve(rows: Sequence[Mapping[str, float]], metric: str) -> tuple[list[float], list[float]]:
    points = [(row["step"], row[metric]) for row in rows if metric in row]
    return [step for step, _ in points], [value for _, value in points]
