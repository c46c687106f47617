"""What each processing program takes for the directions of the beam, the detector and the rotation axes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Vector = tuple[float, float, float]
Pair = tuple[float, float]

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
MINUS_X, MINUS_Y, MINUS_Z = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)


@dataclass(frozen=True)
class Convention:
    """Directions (unit vectors, right-handed axes) before any rotation, the pivot, and the meaning of the beam centre.

    ``beam_offset`` is added to the beam centre, in pixels. ``swapped``: the beam centre's x runs along the slow axis.
    ``from_far_edge``: its y counts from the far end of the slow axis. ``default_offset``: what is added to the middle
    of the detector where no beam centre is given, in pixels, along (x, y).
    """

    name: str
    beam: Vector
    fast: Vector
    slow: Vector
    normal: Vector
    two_theta: Vector
    polarisation: Vector
    spindle: Vector
    pivot: str
    beam_offset: float = 0.0
    swapped: bool = False
    from_far_edge: bool = False
    default_offset: Pair = (0.0, 0.0)

    def fast_slow(self, center: Tensor, pixel: float, slow_size: float) -> Tensor:
        """The beam centre ``(x, y)`` as ``(fast, slow)`` from the detector's first corner, all in one unit."""
        x, y = center
        if self.from_far_edge:
            y = slow_size - y
        pair = (y, x) if self.swapped else (x, y)
        return torch.stack(pair) + self.beam_offset * pixel

    def center_of(self, spot: Pair, pixel: float, slow_size: float) -> Pair:
        """The beam centre ``(x, y)`` of a beam that arrives at ``spot`` (fast, slow): what :meth:`fast_slow` undoes."""
        fast, slow = (part - self.beam_offset * pixel for part in spot)
        x, y = (slow, fast) if self.swapped else (fast, slow)
        return x, slow_size - y if self.from_far_edge else y

    def default_center(self, pixel: float, size: Pair) -> Pair:
        """The beam centre ``(x, y)`` of a detector of ``size`` (fast, slow) where none is given."""
        x_size, y_size = reversed(size) if self.swapped else size
        shift_x, shift_y = self.default_offset
        return (x_size + shift_x * pixel) / 2, (y_size + shift_y * pixel) / 2


_MOSFLM = Convention(
    name="MOSFLM",
    beam=X,
    fast=Z,
    slow=MINUS_Y,
    normal=X,
    two_theta=MINUS_Z,
    polarisation=Z,
    spindle=Z,
    pivot="beam",
    beam_offset=0.5,
    swapped=True,
    default_offset=(1.0, 1.0),
)
_XDS = Convention(
    name="XDS",
    beam=Z,
    fast=X,
    slow=Y,
    normal=Z,
    two_theta=X,
    polarisation=X,
    spindle=X,
    pivot="sample",
)
CONVENTIONS = {
    "MOSFLM": _MOSFLM,
    "DENZO": dataclasses.replace(_MOSFLM, name="DENZO", beam_offset=0.0),
    "ADXV": Convention(
        name="ADXV",
        beam=Z,
        fast=X,
        slow=MINUS_Y,
        normal=Z,
        two_theta=MINUS_X,
        polarisation=X,
        spindle=X,
        pivot="beam",
        from_far_edge=True,
        default_offset=(1.0, -1.0),
    ),
    "XDS": _XDS,
    "DIALS": dataclasses.replace(_XDS, name="DIALS", two_theta=Y, polarisation=Y, spindle=Y),
}
BUILT_IN = dataclasses.replace(_MOSFLM, two_theta=Y)
"""The directions that nanoBragg's command line starts from where some are given as vectors and others are not."""
DIRECTIONS = ("beam", "fast", "slow", "normal", "two_theta", "polarisation", "spindle")


def convention(name: str) -> Convention:
    """The convention of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {', '.join(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]


def as_given(**vectors: Vector) -> Convention:
    """The custom convention as nanoBragg makes it of the vectors on its command line.

    Those that are not given are :data:`BUILT_IN`, the normal too, unless a normal is given whose length is not 1:
    then it is ``fast x slow``. The two-theta axis keeps its length, and the turn is Rodrigues' formula with it as it
    is: a rotation only where that length is 1.

    Example:
        >>> as_given(fast=(1, 0, 0), slow=(0, 1, 0)).normal
        (1.0, 0.0, 0.0)
        >>> as_given(fast=(1, 0, 0), slow=(0, 1, 0), normal=(0, 0, 2)).normal
        (0.0, 0.0, 1.0)

    Raises:
        ValueError: as :func:`custom`.
    """
    normal = vectors.get("normal", BUILT_IN.normal)
    kept = {name: vector for name, vector in vectors.items() if name != "normal"}
    if math.sqrt(sum(part * part for part in normal)) == 1:
        made = custom(BUILT_IN, normal=normal, **kept)
    else:
        made = custom(BUILT_IN, **{"fast": BUILT_IN.fast, **kept})
    return dataclasses.replace(made, two_theta=vectors.get("two_theta", made.two_theta))


def custom(base: str | Convention = "MOSFLM", **vectors: Vector) -> Convention:
    """The convention ``base`` with some directions (:data:`DIRECTIONS`) replaced by vectors of any length but 0.

    The beam centre has no offsets, the pivot is the beam. The normal is ``fast x slow`` unless it is given.

    Example:
        >>> custom(fast=(1, 0, 0), slow=(0, 1, 0)).normal
        (0.0, 0.0, 1.0)

    Raises:
        ValueError: an unknown direction, or a vector that is not three numbers or has no length.
    """
    start = convention(base) if isinstance(base, str) else base
    units: dict[str, Vector] = {}
    for name, vector in vectors.items():
        if name not in DIRECTIONS:
            raise ValueError(f"direction: expected one of {', '.join(DIRECTIONS)}, got {name!r}")
        length = sum(part * part for part in vector) ** 0.5
        if len(vector) != 3 or not 0 < length < float("inf"):
            raise ValueError(f"{name}: expected three numbers that are not all 0, got {vector}")
        x, y, z = (part / length for part in vector)
        units[name] = (x, y, z)
    fast, slow = units.get("fast", start.fast), units.get("slow", start.slow)
    if "normal" not in units and ("fast" in units or "slow" in units):
        crossed = torch.linalg.cross(torch.tensor(fast, dtype=torch.float64), torch.tensor(slow, dtype=torch.float64))
        if float(crossed.norm()) < 1e-6:
            raise ValueError(f"fast and slow: expected two different directions, got {fast} and {slow}")
        x, y, z = (crossed / crossed.norm()).tolist()
        units["normal"] = (x, y, z)
    plain = {"beam_offset": 0.0, "swapped": False, "from_far_edge": False, "default_offset": (0.0, 0.0)}
    return dataclasses.replace(start, name="CUSTOM", pivot="beam", **plain, **units)  # type: ignore[arg-type]


class Axes(nn.Module):
    """The directions of a :class:`Convention` as parameters, float64 ``[3]`` each."""

    def __init__(self, origin: Convention) -> None:
        super().__init__()
        for name in DIRECTIONS:
            vector = torch.tensor(getattr(origin, name), dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(vector, requires_grad=False))

    beam: nn.Parameter
    fast: nn.Parameter
    slow: nn.Parameter
    normal: nn.Parameter
    two_theta: nn.Parameter
    polarisation: nn.Parameter
    spindle: nn.Parameter
