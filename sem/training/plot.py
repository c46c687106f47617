"""Curves of a run, from its table of metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from sem.extras import how_to_install
from sem.files import save_figure
from sem.training.health import Criterion
from sem.training.logging import read_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Panel:
    """One picture of the page.

    Attributes:
        figures: what is drawn over the steps; a panel without any of them is left out.
        log: whether the axis is logarithmic.
        lines: levels to compare with, by label.
    """

    title: str
    figures: tuple[str, ...]
    log: bool = False
    lines: Mapping[str, float] = field(default_factory=dict)


PANELS = (
    Panel("bits per byte", ("bits_per_byte", "val_bits_per_byte")),
    Panel("loss", ("loss", "val_loss")),
    Panel("learning rate", ("learning_rate",)),
    Panel("gradient norm", ("grad_norm", "grad_norm_clipped"), log=True),
    Panel("share of the gradient clipped", ("clipped_share",)),
    Panel("unitary divergence", ("unitary_divergence",)),
    Panel("solver: residual, unitarity", ("cg_residual", "unitarity_deviation"), log=True),
    Panel("phase entropy", ("phase_entropy_before", "phase_entropy_after")),
    Panel("sparsity, coherence", ("sdr_sparsity", "phase_coherence")),
    Panel("throughput", ("tokens_per_second",)),
)
"""A training run's page."""

LINE_STYLES = ("--", "-.", ":")
SMALL = 1e-2
"""Positive limits below this are drawn on a logarithmic axis."""


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
    panels = (replace(PANELS[0], lines=baselines or {}), *PANELS[1:])
    rows = read_csv(table)
    try:
        return draw(rows, panels, target, title)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from None


def health_panels(criteria: Iterable[Criterion]) -> list[Panel]:
    """A panel for each criterion: the figures it is made of, and its limit as a line where it is a level of theirs."""
    panels = []
    for criterion in criteria:
        figures = criterion.metrics or (criterion.name,)
        limit = criterion.limit if len(figures) == 1 else None
        lines = {} if limit is None else {criterion.expected: limit}
        panels.append(Panel(criterion.name, figures, limit is not None and 0 < limit < SMALL, lines))
    return panels


def draw(rows: Sequence[Mapping[str, float]], panels: Iterable[Panel], target: str | Path, title: str = "") -> Path:
    """Draw figures over steps into a picture, which is written completely or not at all.

    Args:
        rows: figures of steps, each with its number under ``step``; values that are not finite are marked at the
            bottom of their panel.
        panels: what to draw; those of which nothing was measured are left out.
        target: picture to write; its suffix gives the format.
        title: heading.

    Raises:
        ValueError: there is nothing to draw.
        ImportError: matplotlib is not installed.
    """
    measured = set().union(*rows) if rows else set()
    shown = [
        replace(panel, figures=present)
        for panel in panels
        if (present := tuple(figure for figure in panel.figures if figure in measured))
    ]
    if not shown:
        raise ValueError(f"expected at least one figure to draw, got {sorted(measured)}")

    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f"curves need matplotlib: {how_to_install('train')}") from None

    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.2 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for index, panel in enumerate(shown):
        _draw_panel(figure.add_subplot(lines, columns, index + 1), panel, rows)
    if title:
        figure.suptitle(title)
    target = Path(target)
    save_figure(figure, target, dpi=110)
    return target


def _draw_panel(axes: Axes, panel: Panel, rows: Sequence[Mapping[str, float]]) -> None:
    broken: list[float] = []
    positive = False
    for metric in panel.figures:
        points = [(row["step"], row[metric]) for row in rows if metric in row]
        axes.plot(*zip(*points, strict=True), label=metric, marker="." if len(points) < 30 else None)
        broken += [step for step, value in points if not math.isfinite(value)]
        positive |= any(0 < value < math.inf for _, value in points)
    for (label, value), style in zip(panel.lines.items(), cycle(LINE_STYLES), strict=False):
        axes.axhline(value, linestyle=style, linewidth=1.0, color="0.4", label=label)
    if broken:
        bottom = axes.get_xaxis_transform()
        axes.plot(broken, [0.0] * len(broken), "rx", transform=bottom, clip_on=False, label="not finite")
    if panel.log and positive:
        axes.set_yscale("log")
    axes.set(title=panel.title, xlabel="step")
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend()
