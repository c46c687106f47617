"""Parameters of a model as the coordinates of a fit: without bounds, of like size, tied by the crystal's system."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sem.diffraction.parameters import choice, positive
from sem.diffraction.refinement.panels import Exposure


@dataclass(frozen=True)
class Kind:
    """How a parameter is refined.

    Attributes:
        unit: what its values are counted in.
        step: a small change of the coordinate, from which the natural unit is looked for.
        low, high: open interval the value stays in; the coordinate is the value itself where both are infinite, its
            logarithm above ``low = 0``, its logit between two finite ones.
        of_place: moves spots; what only changes their shapes waits for the last stage.
        in_scale: only scales the image, which a profiled scale does already.
    """

    unit: str
    step: float
    low: float = -math.inf
    high: float = math.inf
    of_place: bool = True
    in_scale: bool = False

    def coordinate(self, value: Tensor) -> Tensor:
        """The coordinate of a parameter's ``value``, which lies within the bounds; the inverse of :meth:`value`."""
        if math.isfinite(self.high):
            return torch.logit((value - self.low) / (self.high - self.low))
        return value if math.isinf(self.low) else value.log()

    def value(self, coordinate: Tensor) -> Tensor:
        """The parameter's value at ``coordinate``, any real number: always within the bounds."""
        if math.isfinite(self.high):
            return self.low + (self.high - self.low) * torch.sigmoid(coordinate)
        return coordinate if math.isinf(self.low) else coordinate.exp()

    def slope(self, coordinate: Tensor) -> Tensor:
        """Derivative of :meth:`value`."""
        if math.isfinite(self.high):
            fraction = torch.sigmoid(coordinate)
            return (self.high - self.low) * fraction * (1 - fraction)
        return torch.ones_like(coordinate) if math.isinf(self.low) else coordinate.exp()


def _shape(step: float = 0.05) -> Kind:
    return Kind("", step, low=0.0, of_place=False)


REFINABLE: Mapping[str, Kind] = {
    "crystal.lengths": Kind("Å", 1e-4, low=0.0),
    "crystal.angles": Kind("degrees", 0.01, low=0.0, high=180.0),
    "crystal.reciprocal": Kind("1/Å", 1e-6),
    "crystal.misset": Kind("degrees", 0.01),
    "crystal.phi": Kind("degrees", 0.01),
    "crystal.oscillation": Kind("degrees", 0.01),
    "crystal.mosaic_spread": Kind("degrees", 0.05, low=0.0, of_place=False),
    "crystal.cells": _shape(),
    "crystal.fudge": _shape(),
    "beam.wavelength": Kind("Å", 1e-4, low=0.0),
    "beam.polarisation": Kind("", 0.05, low=-1.0, high=1.0, of_place=False),
    "beam.divergence": Kind("mrad", 0.05, low=0.0, of_place=False),
    "beam.dispersion": _shape(),
    "beam.fluence": Kind("photons/m²", 0.01, low=0.0, of_place=False, in_scale=True),
    "detector.distance": Kind("mm", 1e-4, low=0.0),
    "detector.close_distance": Kind("mm", 1e-4, low=0.0),
    "detector.beam_center": Kind("mm", 0.01),
    "detector.near_point": Kind("mm", 0.01),
    "detector.rotation": Kind("degrees", 0.01),
    "detector.two_theta": Kind("degrees", 0.01),
    "reflections.default": Kind("", 0.01, low=0.0, of_place=False, in_scale=True),
    "water": Kind("µm", 0.05, low=0.0, of_place=False),
    "point_spread.width": Kind("mm", 0.05, low=0.0, of_place=False),
    "background.scale": Kind("", 0.05, low=0.0, of_place=False),
}
"""What may be refined, by the name that :meth:`sem.diffraction.Simulator.refine` or that of ``Panels`` knows it by."""

_FREE = {"crystal.lengths": (0, 1, 2), "crystal.angles": (0, 1, 2)}
_FIXED = -1
SYSTEMS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "triclinic": _FREE,
    "monoclinic": {**_FREE, "crystal.angles": (_FIXED, 0, _FIXED)},
    "orthorhombic": {**_FREE, "crystal.angles": (_FIXED,) * 3},
    "tetragonal": {"crystal.lengths": (0, 0, 1), "crystal.angles": (_FIXED,) * 3},
    "hexagonal": {"crystal.lengths": (0, 0, 1), "crystal.angles": (_FIXED,) * 3},
    "rhombohedral": {"crystal.lengths": (0, 0, 0), "crystal.angles": (0, 0, 0)},
    "cubic": {"crystal.lengths": (0, 0, 0), "crystal.angles": (_FIXED,) * 3},
}
"""Which numbers of the cell are one, by crystal system: equal indices are tied, -1 stays what it is."""


class Coordinates:
    """The numbers that a fit moves, ``[count]``, and the parameters that follow from them.

    Args:
        simulator: whose parameters they are; they ask for gradients from now on, and no others.
        names: of the parameters, from :data:`REFINABLE`.
        system: crystal system, which ties lengths and angles of the cell.
        restraints: standard deviations of a parameter's numbers about where they start, by name, in its unit.

    Example:
        >>> from sem.diffraction import Beam, Crystal, Detector, Reflections, Simulator
        >>> crystal = Crystal((70, 70, 90, 90, 90, 90), cells=(5, 5, 5))
        >>> simulator = Simulator(crystal, Beam(), Detector((16, 16)), Reflections(100.0))
        >>> coordinates = Coordinates(simulator, ["crystal.lengths", "crystal.misset"], "tetragonal")
        >>> coordinates.labels[:3]
        ['crystal.lengths[0,1]', 'crystal.lengths[2]', 'crystal.misset[0]']
        >>> coordinates.set(coordinates.start + 0.01)
        >>> [round(value, 3) for value in crystal.lengths.tolist()]
        [70.704, 70.704, 90.905]

    Raises:
        ValueError: a name that cannot be refined or is given twice, a start outside of the bounds, a system that the
            cell does not have, a restraint of what is not refined.
    """

    def __init__(
        self,
        simulator: Exposure,
        names: Sequence[str],
        system: str = "triclinic",
        restraints: Mapping[str, float] | None = None,
    ) -> None:
        self.names = tuple(names)
        if not self.names:
            raise ValueError("refine: expected the name of a parameter, got none")
        for name in self.names:
            choice("refine", name, tuple(REFINABLE))
            if self.names.count(name) > 1:
                raise ValueError(f"refine: expected every parameter once, got {name} twice")
            if name not in dict(simulator.named_parameters()):
                raise ValueError(f"refine: expected a parameter that this experiment has, got {name}")
        self._parameters = simulator.refine(*self.names)
        self._kinds = [REFINABLE[name] for name in self.names]
        groups = SYSTEMS[choice("system", system, tuple(SYSTEMS))]
        self._places: list[Tensor] = []  # for each parameter, which coordinate its numbers follow; -1 for none
        self.labels: list[str] = []
        self.kinds: list[Kind] = []
        self._owners: list[int] = []  # of each coordinate, the parameter
        start: list[float] = []
        for number, (name, parameter, kind) in enumerate(zip(self.names, self._parameters, self._kinds, strict=True)):
            values = parameter.detach().flatten()
            _require_inside(name, values, kind)
            places = groups.get(name, tuple(range(len(values))))
            own = sorted(set(places) - {_FIXED})
            if not own:
                raise ValueError(f"refine: expected a parameter that the {system} system leaves free, got {name}")
            for group in own:
                members = [index for index, place in enumerate(places) if place == group]
                tied = values[members]
                if float((tied - tied[0]).abs().max()) > 1e-6 * float(tied[0].abs()):
                    shown = " ".join(f"{value:g}" for value in tied.tolist())
                    raise ValueError(f"system: expected equal numbers of {name} in the {system} one, got {shown}")
                start.append(float(kind.coordinate(tied[0])))
                listed = ",".join(map(str, members))
                self.labels.append(name if len(values) == 1 else f"{name}[{listed}]")
                self.kinds.append(kind)
                self._owners.append(number)
            first = len(start) - len(own)
            self._places.append(torch.tensor([first + own.index(p) if p != _FIXED else _FIXED for p in places]))
        self.start = torch.tensor(start, dtype=torch.float64)
        self.restraint = self._restraints(restraints or {})

    def __len__(self) -> int:
        return len(self.start)

    @property
    def steps(self) -> Tensor:
        """A small change of each coordinate, ``[count]``."""
        return torch.tensor([kind.step for kind in self.kinds], dtype=torch.float64)

    def placed(self) -> Tensor:
        """Which coordinates move spots, bool ``[count]``."""
        return torch.tensor([kind.of_place for kind in self.kinds])

    @torch.no_grad()
    def set(self, coordinates: Tensor, moving: Tensor | None = None) -> None:
        """Give the parameters the values that follow from ``coordinates`` ``[count]``, those that are ``moving``."""
        for parameter, places, kind in zip(self._parameters, self._places, self._kinds, strict=True):
            free = places >= 0 if moving is None else (places >= 0) & moving[places]
            parameter.view(-1)[free] = kind.value(coordinates[places[free]])

    def gradient(self, coordinates: Tensor) -> Tensor:
        """What the parameters' gradients make of the coordinates', ``[count]``; those of the parameters are cleared."""
        result = torch.zeros_like(coordinates)
        for parameter, places in zip(self._parameters, self._places, strict=True):
            if parameter.grad is not None:
                free = places >= 0
                result.index_add_(0, places[free], parameter.grad.view(-1)[free])
                parameter.grad = None
        return result * self.slopes(coordinates)

    def slopes(self, coordinates: Tensor) -> Tensor:
        """Change of a parameter's number per change of its coordinate, ``[count]``."""
        return torch.stack([kind.slope(at) for kind, at in zip(self.kinds, coordinates, strict=True)])

    def values(self, coordinates: Tensor) -> Tensor:
        """The numbers that the coordinates stand for, ``[count]``."""
        return torch.stack([kind.value(at) for kind, at in zip(self.kinds, coordinates, strict=True)])

    def _restraints(self, given: Mapping[str, float]) -> Tensor:
        """1 / sigma² of each coordinate's number, 0 where nothing holds it."""
        for name, sigma in given.items():
            if name not in self.names:
                raise ValueError(f"restrain: expected a parameter that is refined, got {name}")
            positive(f"restrain {name}", sigma, REFINABLE[name].unit and f"in {REFINABLE[name].unit}")
        sigmas = [given.get(self.names[owner], math.inf) for owner in self._owners]
        return torch.tensor([sigma**-2 for sigma in sigmas], dtype=torch.float64)


def parameters_of(simulator: nn.Module, names: Sequence[str]) -> dict[str, list[float] | float | list[list[float]]]:
    """The values of the parameters ``names``, as plain numbers and lists."""
    known = dict(simulator.named_parameters())
    return {name: known[name].tolist() for name in names}


def _require_inside(name: str, values: Tensor, kind: Kind) -> None:
    if not bool(((values > kind.low) & (values < kind.high)).all()):
        shown = " ".join(f"{value:g}" for value in values.tolist())
        limits = f"above {kind.low:g}" + (f" and below {kind.high:g}" if math.isfinite(kind.high) else "")
        raise ValueError(f"{name}: expected to start from numbers {limits}, got {shown}")
