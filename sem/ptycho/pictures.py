"""Pictures of scans, objects, probes, positions and losses; each is written completely or not at all.

Rows run down and columns to the right, as in the arrays. Where the scan's geometry is known axes are in nm, elsewhere
in pixels of the object. All need matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sem.extras import how_to_install
from sem.files import save_figure
from sem.ptycho.comparison import beside, rings_beside, shown
from sem.ptycho.files import AXES, Geometry, ResultFile, ScanFile
from sem.ptycho.files.checks import laid_along
from sem.ptycho.frc import half_bit_curve
from sem.ptycho.metrics import aligned
from sem.ptycho.positions import affine_onto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110


def draw_scan(contents: ScanFile, target: str | Path) -> None:
    """The mean pattern on a logarithmic scale, the positions in their order and, where there is one, the probe."""
    scan, probe = contents.scan, contents.probe
    figure, panels = _page(2 if probe is None else 4)
    mean = torch.fft.fftshift(scan.amplitudes.double().square().mean(0))
    least = float(mean[mean > 0].min()) if bool(mean.any()) else 1.0
    _image(panels[0], mean.clamp_min(least).log10(), "mean counts, log10")
    panels[0].set(xlabel="detector pixels")
    step, unit = _pixel(contents.geometry)
    middles = (scan.positions.double() + scan.side // 2) * step
    panels[1].plot(middles[:, 1], middles[:, 0], "-", color="0.8", linewidth=0.6)
    panels[1].plot(middles[:, 1], middles[:, 0], ".", markersize=3)
    panels[1].set(title=f"{len(scan)} positions", xlabel=unit, ylabel=unit, aspect="equal")
    panels[1].invert_yaxis()
    if probe is not None:
        _wave(panels[2:], probe[0], "probe", contents.geometry)
    save_figure(figure, target, dpi=DPI)


def draw_object(result: ResultFile, target: str | Path) -> None:
    """Amplitude and phase of the object, where it is lit and without a ramp, and of the probe's strongest mode."""
    figure, panels = _page(4)
    _wave(panels[:2], shown(result), "object", result.geometry)
    _wave(panels[2:], result.probe[0], "probe", result.geometry)
    figure.suptitle(result.name)
    save_figure(figure, target, dpi=DPI)


def draw_error(result: ResultFile, truth: Tensor, target: str | Path) -> None:
    """Found and true amplitude, found and true phase, and how far both are off, once factor and ramp are taken out.

    Raises:
        ValueError: too few pixels are left to be compared.
    """
    found, wanted = beside(result, truth)
    found, wanted = aligned(found, wanted), wanted.to(torch.complex128)
    figure, panels = _page(6, columns=3)
    limits = dict(vmin=float(wanted.abs().min()), vmax=float(wanted.abs().max()))
    _image(panels[0], found.abs(), "amplitude found", result.geometry, **limits)
    _image(panels[1], wanted.abs(), "amplitude, true", result.geometry, **limits)
    _image(panels[2], (found - wanted).abs(), "|found - true|", result.geometry)
    turned = wanted * torch.polar(torch.ones(()).double(), -wanted.sum().angle())  # a factor is free
    low, high = turned.angle().aminmax()
    for panel, wave, title in ((panels[3], found, "phase found"), (panels[4], wanted, "phase, true")):
        _phase(panel, wave * turned.sum() / wanted.sum(), title, result.geometry, (float(low), float(high)))
    off = (found * wanted.conj()).angle()
    most = float(off.abs().max()) or 1.0
    _image(panels[5], off, "phase error", result.geometry, cmap="RdBu", vmin=-most, vmax=most)
    save_figure(figure, target, dpi=DPI)


def draw_rings(result: ResultFile, truth: Tensor, target: str | Path) -> None:
    """The ring correlation with the true object, and the curves whose crossing is called the resolution.

    Raises:
        ValueError: too few pixels are left to be compared.
    """
    rings = rings_beside(result, truth)
    figure, (axes,) = _page(1)
    frequency = torch.arange(len(rings.curve)) / rings.side
    axes.plot(frequency, rings.curve, label="correlation")
    axes.plot(frequency[1:], half_bit_curve(rings.pixels)[1:], "--", color="0.4", label="half bit")
    axes.axhline(1 / 7, linestyle=":", color="0.4", label="1/7")
    axes.set(title=f"{result.name}: {rings.resolution(1.0):.3g} pixels", xlabel="cycles per pixel", ylim=(-0.1, 1.05))
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, target, dpi=DPI)


def draw_positions(result: ResultFile, target: str | Path) -> None:
    """Positions before and after their refinement, and the steps between as arrows, drawn longer where they are short:
    less their mean, which no pattern tells, and less the nearest affine map, which is a scale and a shear of the stage,
    or of the object."""
    figure, panels = _page(3)
    step, unit = _pixel(result.geometry)
    before, after = ((where.double() + result.side // 2) * step for where in (result.start, result.positions))
    panels[0].plot(before[:, 1], before[:, 0], ".", label="before", markersize=4)
    panels[0].plot(after[:, 1], after[:, 0], "+", label="after", markersize=5)
    panels[0].legend(loc="upper right")
    panels[0].set(title="positions")
    extent = float((before.amax(0) - before.amin(0)).max()) or 1.0
    longest = 1.5 * extent / max(1.0, len(before) ** 0.5)
    moved = after - before
    for axes, moves, what in (
        (panels[1], moved - moved.mean(0), "less their mean"),
        (panels[2], after - affine_onto(before, after), "less an affine map"),
    ):
        size = moves.norm(dim=1)
        times = _round_below(longest / float(size.max().clamp_min(1e-12)))
        x, y, along, down = before[:, 1], before[:, 0], moves[:, 1], moves[:, 0]
        arrows = axes.quiver(
            x, y, along, down, size, angles="xy", scale_units="xy", scale=1 / times, width=0.004, cmap="viridis"
        )
        figure.colorbar(arrows, ax=axes, shrink=0.8, label=unit)
        axes.set(title=f"moved, {what}: median {float(size.median()):.3g} {unit}; x {times:g}")
    for axes in panels:
        axes.set(xlabel=unit, ylabel=unit, aspect="equal")
        axes.invert_yaxis()
    save_figure(figure, target, dpi=DPI)


def _round_below(number: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is no larger; at least 1."""
    power = 10.0 ** math.floor(math.log10(max(number, 1.0)))
    return next(digit * power for digit in (5, 2, 1) if digit * power <= max(number, 1.0))


def draw_losses(results: Sequence[ResultFile], target: str | Path) -> None:
    """Loss and ``chi^2`` over sweeps, of one result or several."""
    figure, panels = _page(2)
    for axes, name, title in zip(panels, ("loss", "chi_squared"), ("loss", "chi^2 (1: photon noise)"), strict=True):
        for result in results:
            if name in result.losses:
                axes.plot(result.losses[name], marker=".", label=result.name)
        axes.set(title=title, xlabel="sweep", yscale="log")
        axes.grid(alpha=0.3)
        if len(results) > 1:
            axes.legend()
    panels[1].axhline(1.0, linestyle="--", linewidth=1.0, color="0.4")
    save_figure(figure, target, dpi=DPI)


def draw_axes(target: str | Path) -> None:
    """How the axes of a file's positions may lie along rows and columns of its patterns: a walk of six positions, in
    the file y = 0, 0, 0, 1, 1, 2 and x = 0, 1, 2, 2, 1, 2, under each of :data:`AXES`."""
    walk = torch.tensor([[0.0, 0], [0, 1], [0, 2], [1, 2], [1, 1], [2, 2]])
    figure, panels = _page(len(AXES), columns=4, size=2.6)
    for axes, name in zip(panels, AXES, strict=True):
        laid = torch.stack(laid_along(walk, name), 1)
        laid = laid - laid.amin(0)
        axes.plot(laid[:, 1], laid[:, 0], "o-", color="C0")
        axes.plot(laid[0, 1], laid[0, 0], "o", color="C3", markersize=11)
        for number, (row, column) in enumerate(laid.tolist()):
            axes.annotate(str(number), (column, row), xytext=(5, 5), textcoords="offset points")
        axes.set(title=name, xlim=(-0.6, 2.6), ylim=(2.6, -0.6), aspect="equal", xticks=range(3), yticks=range(3))
        axes.set(xlabel="column of the object", ylabel="row")
        axes.grid(alpha=0.3)
    save_figure(figure, target, dpi=DPI)


def require_matplotlib() -> None:
    """Before long work whose pictures would fail.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError(f"pictures need matplotlib: {how_to_install('ptycho')}") from None


def _page(count: int, columns: int | None = None, size: float = 4.2) -> tuple[Figure, list[Axes]]:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = columns or count
    rows = -(-count // columns)
    figure = Figure(figsize=(size * columns, 0.92 * size * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def _pixel(geometry: Geometry | None) -> tuple[float, str]:
    """How long a pixel of the object is, and in what."""
    return (1.0, "pixels") if geometry is None else (geometry.object_pixel * 1e9, "nm")


def _wave(panels: Sequence[Axes], wave: Tensor, name: str, geometry: Geometry | None) -> None:
    _image(panels[0], wave.abs(), f"{name}: amplitude", geometry)
    _phase(panels[1], wave, f"{name}: phase", geometry)


def _phase(
    axes: Axes, wave: Tensor, title: str, geometry: Geometry | None, limits: tuple[float, float] | None = None
) -> None:
    """Of colours that close into a circle where the phase may wrap; ``limits``: those to share."""
    angle = wave.angle()
    low, high = (float(bound) for bound in angle.aminmax()) if limits is None else limits
    if high - low > math.pi:
        _image(axes, angle, title, geometry, cmap="twilight", vmin=-math.pi, vmax=math.pi)
    else:
        _image(axes, angle, title, geometry, vmin=low, vmax=high)


def _image(axes: Axes, image: Tensor, title: str, geometry: Geometry | None = None, **more: Any) -> None:
    step, unit = _pixel(geometry)
    height, width = (step * size for size in image.shape)
    drawn = axes.imshow(image.detach().numpy(), extent=(0, width, height, 0), interpolation="nearest", **more)
    axes.set(title=title, xlabel=unit)
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
