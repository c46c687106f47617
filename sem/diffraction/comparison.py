"""How alike two images are: as a whole, at their peaks, on their plateaus."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sem.extras import how_to_install
from sem.files import save_figure

PLATEAU = 21
"""Side in pixels of the square in the middle whose distinct values are counted."""


@dataclass(frozen=True)
class Comparison:
    """Figures of two images of one shape; a field of two holds the first image's and the second's."""

    correlation: float
    """Pearson's, of all good pixels; NaN for an image of one value."""
    rmse: float
    """Square root of the mean squared difference."""
    largest_difference: float
    relative_difference: float
    """The largest difference over the maximum of the first image; 0 for two images of zeros."""
    maximum: tuple[float, float]
    sum_ratio: float
    """The second image's sum over the first's."""
    peaks: tuple[int, int]
    """How many of the highest peaks were looked at."""
    matched: int
    """Peaks of the first image with one of the second within the radius, one to one."""
    radius: float
    plateau: tuple[int, int]
    """Distinct float32 values in the middle of the image."""
    left_out: int = 0
    """Pixels that are bad in either image, of which no figure knows."""

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name, for JSON: NaN and infinities as None."""
        return {name: plain(value) for name, value in dataclasses.asdict(self).items()}


def local_maxima(image: Tensor, count: int) -> Tensor:
    """Positions ``[n, 2]`` (slow, fast) of the ``count`` highest pixels that no neighbour exceeds, highest first.

    A pixel counts if it is above 0 and equals the maximum of the 3 x 3 pixels around it.

    Example:
        >>> image = torch.zeros(5, 5)
        >>> image[1, 3] = 2.0
        >>> local_maxima(image, 10).tolist()
        [[1, 3]]
    """
    values = image.to(torch.float64)
    highest = torch.nn.functional.max_pool2d(values[None, None], 3, stride=1, padding=1)[0, 0]
    places = ((values == highest) & (values > 0)).nonzero()
    order = values[places[:, 0], places[:, 1]].argsort(descending=True, stable=True)
    return places[order[:count]]


def matches(first: Tensor, second: Tensor, radius: float) -> int:
    """How many positions ``[n, 2]`` of ``first`` have one of ``second`` within ``radius``, each once, nearest first."""
    if not len(first) or not len(second):
        return 0
    distance = torch.cdist(first.to(torch.float64), second.to(torch.float64))
    found = 0
    while bool(distance.min() <= radius):
        row, column = divmod(int(distance.argmin()), distance.shape[1])
        distance[row, :] = math.inf
        distance[:, column] = math.inf
        found += 1
    return found


def distinct_values(image: Tensor, side: int = PLATEAU, good: Tensor | None = None) -> int:
    """Distinct float32 values in the square of ``side`` pixels in the middle of ``image``, of ``good`` pixels."""
    slow, fast = (max((size - side + 1) // 2, 0) for size in image.shape)
    middle = slice(slow, slow + side), slice(fast, fast + side)
    values = image[middle] if good is None else image[middle][good[middle]]
    return len(values.to(torch.float32).unique())


def compare(
    first: Tensor, second: Tensor, *, peaks: int = 50, radius: float = 0.5, good: Tensor | None = None
) -> Comparison:
    """Compare two images ``[slow, fast]``; differences are second less first.

    ``good``, bool of their shape, is False at pixels that are left out of every figure.

    Example:
        >>> image = torch.rand(32, 32)
        >>> compare(image, 2 * image).sum_ratio
        2.0

    Raises:
        ValueError: images of different shapes, without pixels or good ones, with good ones that are NaN or infinite, or
            ``good`` of another shape.
    """
    for name, image in (("first image", first), ("second image", second)):
        if image.dim() != 2 or not image.numel():
            raise ValueError(f"{name}: expected pixels in two dimensions, got shape {list(image.shape)}")
    if first.shape != second.shape:
        raise ValueError(f"second image: expected shape {list(first.shape)} as the first, got {list(second.shape)}")
    good = torch.ones_like(first, dtype=torch.bool) if good is None else good
    if good.shape != first.shape:
        raise ValueError(f"good: expected shape {list(first.shape)} as the images, got {list(good.shape)}")
    if not bool(good.any()):
        raise ValueError("images: expected pixels that are good in both, got none")
    for name, image in (("first image", first), ("second image", second)):
        wrong = good & ~image.isfinite()
        if bool(wrong.any()):
            raise ValueError(f"{name}: expected finite pixels, got {int(wrong.sum())} that are not")
    # peaks and plateaus need the images' shape; a pixel of minus infinity is no peak, and hides none
    images = [image.to(torch.float64).where(good, -math.inf) for image in (first, second)]
    found = [local_maxima(image, peaks) for image in images]
    one, two = (image[good] for image in images)
    difference = two - one
    largest, maximum = float(difference.abs().max()), float(one.max())
    return Comparison(
        correlation=_correlation(one, two),
        rmse=float(difference.square().mean().sqrt()),
        largest_difference=largest,
        relative_difference=largest / maximum if maximum else (math.inf if largest else 0.0),
        maximum=(maximum, float(two.max())),
        sum_ratio=float(two.sum() / one.sum()) if float(one.sum()) else math.nan,
        peaks=(len(found[0]), len(found[1])),
        matched=matches(found[0], found[1], radius),
        radius=radius,
        plateau=(distinct_values(images[0], good=good), distinct_values(images[1], good=good)),
        left_out=int((~good).sum()),
    )


def plot_difference(first: Tensor, second: Tensor, path: str | Path, titles: tuple[str, str]) -> None:
    """A picture of both images, on a logarithmic scale, and of the second less the first.

    Raises:
        ImportError: matplotlib is not there.
        OSError: the file could not be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f"a difference picture needs matplotlib: {how_to_install('train')}") from None

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    top = max(float(first.max()), float(second.max()), 1e-30)
    norm = LogNorm(top * 1e-5, top, clip=True)
    difference = (second.to(torch.float64) - first.to(torch.float64)).numpy()
    limit = max(float(abs(difference).max()), 1e-30)
    panels = (
        (first.numpy(), titles[0], {"cmap": "magma", "norm": norm}),
        (second.numpy(), titles[1], {"cmap": "magma", "norm": norm}),
        (difference, "difference", {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}),
    )
    for axes, (pixels, title, style) in zip(figure.subplots(1, 3), panels, strict=True):
        figure.colorbar(axes.imshow(pixels, interpolation="nearest", **style), ax=axes)
        axes.set_title(title)
        axes.set_xlabel("fast pixel")
        axes.set_ylabel("slow pixel")
    save_figure(figure, path, dpi=110)


def _correlation(one: Tensor, two: Tensor) -> float:
    a, b = one - one.mean(), two - two.mean()
    scale = float(a.norm() * b.norm())
    return float((a * b).sum()) / scale if scale else math.nan


def plain(value: Any) -> Any:
    """``value`` as JSON holds it: lists for tuples, null for what is no finite number."""
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
