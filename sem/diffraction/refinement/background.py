"""Backgrounds that a fit adds to the model image: none, one level, or a smooth function of the scattering angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sem.diffraction.background import scattering_angles
from sem.diffraction.parameters import choice, count
from sem.diffraction.refinement.panels import Exposure, panels_of, stacked

BACKGROUNDS = ("none", "flat", "radial")


@torch.no_grad()
def background_terms(simulator: Exposure, kind: str, terms: int) -> Tensor:
    """The columns ``[pixels, terms]`` whose sum with coefficients is the background, pixels in the image's order.

    ``flat``: one level, of all panels. ``radial``: hat functions of the scattering angle with ``terms`` even knots from
    the smallest to the largest angle on the detector, all of its panels; coefficients are the background at the knots,
    and a background is >= 0 where they are.

    Raises:
        ValueError: an unknown kind, fewer than two knots.
    """
    choice("background", kind, BACKGROUNDS)
    panels = panels_of(simulator)
    if kind != "radial":
        level = stacked([torch.ones(panel.computed().shape, dtype=torch.float64) for panel in panels]).reshape(-1, 1)
        return level if kind == "flat" else level[:, :0]
    if count("background terms", terms) < 2:
        raise ValueError(f"background terms: expected a whole number >= 2, got {terms}")
    angles = [scattering_angles(panel.detector, panel.physics) for panel in panels]
    low, high = min(float(part.min()) for part in angles), max(float(part.max()) for part in angles)
    place = (stacked(angles, beyond=math.inf).flatten() - low) / max(high - low, 1e-12) * (terms - 1)
    knots = torch.arange(terms, dtype=torch.float64)
    return (1 - (place.unsqueeze(1) - knots).abs()).clamp(min=0.0)
