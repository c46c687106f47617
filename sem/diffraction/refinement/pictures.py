"""Pictures of a fit: the data, the model, and their difference in standard deviations."""

from __future__ import annotations

import io
import math

import torch
from torch import Tensor

from sem.diffraction.refinement.fit import Fit
from sem.diffraction.refinement.shot import Shot
from sem.extras import how_to_install

_MOST_SIGMAS = 5.0
_GAP = 3  # pixels between panels


def fit_pictures(shot: Shot, fit: Fit, title: str) -> dict[str, bytes]:
    """PNG files ``before`` and ``after``: data, model and difference side by side, pixels that are not used in grey.

    Several panels of a detector are laid out row by row in the order of their numbers, not as they lie in space.

    Raises:
        ImportError: matplotlib is not there.
    """
    return {
        name: _picture(shot, model, fit.sigma, f"{title}, {name} refinement")
        for name, model in (("before", fit.before), ("after", fit.after))
    }


def require_matplotlib() -> None:
    """Before a fit whose pictures would fail.

    Raises:
        ImportError: matplotlib is not there.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        hint = how_to_install("crystallography")
        raise ImportError(f"pictures of a fit, left out by --no-pictures, need matplotlib: {hint}") from None


def _picture(shot: Shot, model: Tensor, sigma: Tensor, title: str) -> bytes:
    require_matplotlib()
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.9), layout="constrained")
    FigureCanvasAgg(figure)
    left_out = (~_laid_out(shot.used)).numpy()
    images = (shot.counts, model, (shot.counts - model) / sigma)
    counts, expected, sigmas = (np.ma.array(_laid_out(image).numpy(), mask=left_out) for image in images)
    top = max(float(counts.max()), float(expected.max()), 1e-30)
    norm = LogNorm(max(float(sigma[shot.used].min()), top * 1e-5), top, clip=True)
    maps = {name: colormaps[name].with_extremes(bad="0.6") for name in ("magma", "RdBu_r")}
    drawings = (
        (counts, "data, photons", {"cmap": maps["magma"], "norm": norm}),
        (expected, "model", {"cmap": maps["magma"], "norm": norm}),
        (sigmas, "(data - model) / sigma", {"cmap": maps["RdBu_r"], "vmin": -_MOST_SIGMAS, "vmax": _MOST_SIGMAS}),
    )
    for axes, (pixels, name, style) in zip(figure.subplots(1, 3), drawings, strict=True):
        figure.colorbar(axes.imshow(pixels, interpolation="nearest", **style), ax=axes)
        axes.set_title(name)
        axes.set_xlabel("fast pixel")
        axes.set_ylabel("slow pixel")
    if shot.counts.dim() > 2:
        title += f", panels 0 to {len(shot.counts) - 1} row by row"
    figure.suptitle(title)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    return drawn.getvalue()


def _laid_out(image: Tensor) -> Tensor:
    """The panels of an image ``[panels, slow, fast]`` in rows, about as wide as high; one ``[slow, fast]`` as it is."""
    if image.dim() == 2:
        return image
    panels, slow, fast = image.shape
    columns = min(max(round(math.sqrt(panels * slow / fast)), 1), panels)
    rows = math.ceil(panels / columns)
    tiles = torch.zeros(rows * columns, slow + _GAP, fast + _GAP, dtype=image.dtype)
    tiles[:panels, :slow, :fast] = image
    tiles = tiles.reshape(rows, columns, *tiles.shape[1:]).transpose(1, 2)
    return tiles.reshape(rows * (slow + _GAP), -1)[:-_GAP, :-_GAP]
