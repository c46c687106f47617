"""One panel or several as one image: of the model, and of what files hold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from sem.diffraction.panels import Panels
from sem.diffraction.simulator import Simulator

Exposure: TypeAlias = Simulator | Panels
"""What a refinement takes its parameters and its image from."""
PANEL = "{panel}"
"""In the name of a file: one for each panel, with numbers from 0 in its place."""
_MOST_FILES = 4096


def panels_of(simulator: Exposure) -> list[Simulator]:
    """Its panels, in their order."""
    return list(simulator) if isinstance(simulator, Panels) else [simulator]


def image_of(simulator: Exposure) -> Tensor:
    """The model's image as :func:`stacked` makes it of its panels."""
    return stacked(simulator.images() if isinstance(simulator, Panels) else [simulator()])


def stacked(images: Sequence[Tensor], beyond: float = 0.0) -> Tensor:
    """The image ``[slow, fast]`` of one panel as it is; of several ``[panels, slow, fast]``, those that are smaller
    than others made as large at their ends by pixels that are ``beyond``.

    Example:
        >>> stacked([torch.ones(2, 3), torch.ones(1, 2)])[1].tolist()
        [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if len(images) == 1:
        return images[0]
    slow, fast = (max(image.shape[side] for image in images) for side in (0, 1))
    sides = [(0, fast - image.shape[1], 0, slow - image.shape[0]) for image in images]
    filled = [
        torch.nn.functional.pad(image, side, value=beyond) if any(side) else image
        for image, side in zip(images, sides, strict=True)
    ]
    return torch.stack(filled)


def files_named(path: str | Path) -> list[Path]:
    """The file ``path``; where ``{panel}`` is part of it, those with 0, 1, ... in its place, as far as they are there.

    The first one is among them whether it is there or not.
    """
    if PANEL not in str(path):
        return [Path(path)]
    numbered = (Path(str(path).replace(PANEL, str(number))) for number in range(_MOST_FILES))
    first = next(numbered)
    return [first, *itertools.takewhile(Path.is_file, numbered)]
