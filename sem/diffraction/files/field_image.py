"""What a detector's file holds: counts of one or several panels, which pixels are good, and where it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FieldImage:
    """One exposure.

    Args:
        panels: counts ``[slow, fast]`` of each panel, any real dtype.
        good: bool of the same shapes, False where the file says that a pixel is none; empty where it says nothing.
        settings: what the file says of the experiment, some of: ``pixel`` and ``distance`` in mm, ``wavelength`` in Å,
            ``spot``, where the beam arrives from the first pixel's corner along (fast, slow), in mm, ``phi`` and
            ``oscillation`` in degrees.
        frames: how many exposures the file holds.
    """

    panels: tuple[np.ndarray, ...]
    good: tuple[np.ndarray, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    frames: int = 1

    def panel(self, number: int | None, source: object) -> int:
        """``number``, or 0 of a file with one panel.

        Raises:
            ValueError: there is no such panel, or there are several and none is named.
        """
        last = len(self.panels) - 1
        if number is None and last:
            raise ValueError(f"{source}: expected a panel from 0 to {last} to be chosen, got none")
        if number is not None and not 0 <= number <= last:
            raise ValueError(f"{source}: expected a panel from 0 to {last}, got {number}")
        return number or 0

    def pixels(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A panel's counts, float64, and which of them the file does not call bad, bool, both ``[slow, fast]``."""
        image = self.panels[number].astype(np.float64)
        return image, self.good[number].astype(bool) if self.good else np.ones(image.shape, bool)
