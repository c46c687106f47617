"""A measurement over the depth of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sem.activations.moments import Number
from sem.activations.record import Activations
from sem.extras import how_to_install
from sem.files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (
    ("dead_share", "dead channels, share"),
    ("rel_amp_std", "deviation of the amplitude over its mean"),
    ("dc_share", "energy that is constant over positions, share"),
)
"""The panels below the first: statistics and their titles."""
MOST_NAMES = 60


def plot_depth(activations: Activations, target: str | Path, title: str = "") -> Path:
    """Draw mean and standard deviation, dead channels, ``rel_amp_std`` and ``dc_share`` over the layers, in order.

    Statistics that no layer has are left out; a layer without one is a gap in its curve.

    Args:
        target: picture to write, all of it or nothing; its suffix gives the format.
        title: heading.

    Raises:
        ValueError: there is no layer with a mean.
        ImportError: matplotlib is not installed.
    """
    layers = activations.layers
    panels = [(stat, label) for stat, label in SHARES if _is_there(layers, stat)]
    means, deviations = _column(layers, "mean"), _column(layers, "std")
    if not _is_there(layers, "mean"):
        raise ValueError("expected at least one layer with a mean to draw, got none")

    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f"a plot needs matplotlib: {how_to_install('train')}") from None

    width = max(6.0, min(0.28 * len(layers), 0.28 * MOST_NAMES) + 2.0)
    figure = Figure(figsize=(width, 2.4 * (1 + len(panels)) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(1 + len(panels), 1, sharex=True, squeeze=False)[:, 0]
    depth = list(range(len(layers)))
    lower = [mean - std for mean, std in zip(means, deviations, strict=True)]
    upper = [mean + std for mean, std in zip(means, deviations, strict=True)]
    rows[0].fill_between(depth, lower, upper, alpha=0.25, label="one standard deviation")
    rows[0].plot(depth, means, marker=".", label="mean")
    rows[0].set_title("mean")
    rows[0].legend()
    for axes, (stat, label) in zip(rows[1:], panels, strict=True):
        axes.plot(depth, _column(layers, stat), marker=".")
        axes.set_ylim(bottom=0.0)
        axes.set_title(label)
    for axes in rows:
        axes.grid(alpha=0.3)
    _name_layers(rows[-1], list(layers))
    if title:
        figure.suptitle(title)
    target = Path(target)
    save_figure(figure, target, dpi=110)
    return target


def _name_layers(axes: Axes, names: Sequence[str]) -> None:
    every = -(-len(names) // MOST_NAMES)
    shown = range(0, len(names), every)
    # no text of ours is a formula, whatever signs a name holds
    axes.set_xticks(list(shown), [names[index].replace("$", r"\$") for index in shown], rotation=90, fontsize="small")
    axes.set_xlabel("layer")


def _is_there(layers: Mapping[str, Mapping[str, Number]], stat: str) -> bool:
    return any(values.get(stat) is not None for values in layers.values())


def _column(layers: Mapping[str, Mapping[str, Number]], stat: str) -> list[float]:
    """One statistic of every layer, NaN where there is none."""
    found = (values.get(stat) for values in layers.values())
    return [float("nan") if value is None else float(value) for value in found]
