"""Backgrounds that a fit adds to the model image: none, one level, or a smooth function of the scattering angle."""

from __future__ import annotations

import torch
from torch import Tensor

from sem.diffraction.background import scattering_angles
from sem.diffraction.parameters import choice, count
from sem.diffraction.simulator import Simulator

BACKGROUNDS = ("none", "flat", "radial")


@torch.no_grad()
def background_terms(simulator: Simulator, kind: str, terms: int) -> Tensor:
    """The columns ``[pixels, terms]`` whose sum with coefficients is the background, pixels in the image's order.

    ``radial``: hat functions of the scattering angle with ``terms`` even knots from the smallest to the largest angle
    on the detector; coefficients are the background at the knots, and a background is >= 0 where they are.

    Raises:
        ValueError: an unknown kind, fewer than two knots.
    """
    choice("background", kind, BACKGROUNDS)
    detector = simulator.detector
    pixels = detector.slow_pixels * detector.fast_pixels
    if kind == "none":
        return torch.zeros(pixels, 0, dtype=torch.float64)
    if kind == "flat":
        return torch.ones(pixels, 1, dtype=torch.float64)
    if count("background terms", terms) < 2:
        raise ValueError(f"background terms: expected a whole number >= 2, got {terms}")
    angles = scattering_angles(detector, simulator.physics).flatten()
    low, high = float(angles.min()), float(angles.max())
    place = (angles - low) / max(high - low, 1e-12) * (terms - 1)
    knots = torch.arange(terms, dtype=torch.float64)
    return (1 - (place.unsqueeze(1) - knots).abs()).clamp(min=0.0)
