"""What is known of object and probe beside the patterns: given to an engine as ``constraints``.

A constraint is a function ``object, probe = constraint(engine, object, probe)``, which the engine calls after every
sweep, in the order given; :class:`Projections` calls it after its overlap projection. Those here are such functions
with settings; one's own do as well. A :class:`Penalty` is a term of :class:`MaximumLikelihood`'s loss instead.

Example:
    >>> from sem.ptycho import PIE, disk_probe, lines_object, raster_scan, simulate
    >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 6))
    >>> def smallest(engine, object, probe):
    ...     return object * (object.abs() > 0.1), probe
    >>> state = PIE(scan, probe, constraints=[AmplitudeRange(0.0, 1.5), smallest]).run(3)
    >>> bool(state.object.abs().max() < 1.51)
    True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sem.ptycho.engine import Engine
from sem.ptycho.simulation import blurred, mixing_of_modes

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class AmplitudeRange:
    """Amplitudes of the object from ``least`` to ``most``; its phases stay, and where it is 0 they are taken as 0.

    Raises:
        ValueError: not ``0 <= least <= most``.
    """

    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"least, most: expected 0 <= least <= most, got {self.least} and {self.most}")

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        size = object.abs()
        wanted = size.clamp(self.least, self.most)
        return torch.where(size > 0, object * (wanted / size.clamp_min(1e-30)), wanted + 0j), probe


@dataclass(frozen=True)
class PhaseOnly:
    """An object that absorbs nothing: amplitudes of 1, times what absorption there is, ``amplitude``."""

    amplitude: float = 1.0

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        return AmplitudeRange(self.amplitude, self.amplitude)(engine, object, probe)


@dataclass(frozen=True, eq=False)
class ProbeSupport:
    """No probe outside ``support``: 0 to 1 in real ``[N, N]``, or a radius in pixels about pixel ``N // 2``."""

    support: Tensor | float

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        side = probe.shape[-1]
        inside = self.support
        if not isinstance(inside, Tensor):
            along = torch.arange(side) - side // 2
            inside = along.square().unsqueeze(1) + along.square() <= inside**2
        elif inside.shape != (side, side):
            raise ValueError(f"support: expected real [{side}, {side}], got {list(inside.shape)}")
        return object, probe * inside


@dataclass(frozen=True)
class ProbePower:
    """``sum |P|^2`` over pixels and modes as it was measured, in counts; the object takes the factor back, so that no
    pattern changes: ``P -> c P, O -> O / c``.

    Raises:
        ValueError: ``counts`` is not finite or not above 0.
    """

    counts: float

    def __post_init__(self) -> None:
        if not 0 < self.counts < math.inf:
            raise ValueError(f"counts: expected a finite number > 0, got {self.counts}")

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        factor = math.sqrt(self.counts / max(float(probe.abs().square().sum(dtype=torch.float64)), 1e-300))
        return object / factor, probe * factor


@dataclass(frozen=True)
class ProbeCentred:
    """The centre of mass of ``sum_m |P_m|^2`` within half a pixel of pixel ``N // 2``.

    Object and probe move by the same whole pixels, which no pattern can tell; what enters the object at an edge is its
    last row or column repeated, and what enters the probe is what left it on the other side.
    """

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        side = probe.shape[-1]
        power = probe.abs().square().sum(0)
        along = torch.arange(side, dtype=power.dtype) - side // 2
        total = power.sum().clamp_min(1e-30)
        middle = torch.stack([(power.sum(1) * along).sum(), (power.sum(0) * along).sum()]) / total
        y, x = (-round(float(m)) for m in middle)
        if y == 0 and x == 0:
            return object, probe
        engine.carry(lambda waves: waves.roll((y, x), (-2, -1)))
        rows, columns = ((torch.arange(n) - by).clamp(0, n - 1) for n, by in zip(object.shape, (y, x), strict=True))
        return object[rows][:, columns], probe.roll((y, x), (-2, -1))


@dataclass(frozen=True)
class SmoothUnlit:
    """The object blurred where no pattern says anything of it: where ``sum_j |P_j|^2`` is below ``share`` of its most.

    Args:
        width: standard deviation of the Gaussian, in pixels.
    """

    share: float = 1e-3
    width: float = 2.0

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        light = engine.model.illumination(probe)
        smooth = torch.complex(blurred(object.real, self.width), blurred(object.imag, self.width))
        inside = blurred(torch.ones_like(light), self.width)  # what lies beyond the edge is not counted
        return torch.where(light < self.share * light.max(), smooth / inside, object), probe


@dataclass(frozen=True)
class OrthogonalModes:
    """The probe's modes orthogonal, the strongest first (:func:`sem.ptycho.orthogonal_modes`); no pattern changes."""

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        mixing = mixing_of_modes(probe).to(probe.dtype)
        engine.carry(lambda waves: torch.einsum("mn,jnyx->jmyx", mixing, waves))
        return object, torch.einsum("mn,nyx->myx", mixing, probe)


@dataclass(frozen=True)
class RefinePositions:
    """Positions by a step of :meth:`Engine.refine_positions` after every sweep from ``begin`` on, counted from 0."""

    begin: int = 5
    damping: float = 0.5
    limit: float = 0.5
    affine: bool = False

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        if len(engine.state.reports) >= self.begin:
            engine.refine_positions(object, probe, damping=self.damping, limit=self.limit, affine=self.affine)
        return object, probe


@dataclass(frozen=True)
class AnnealPositions:
    """Positions by :meth:`Engine.anneal_positions` after sweeps ``begin`` to ``end``, with a radius that shrinks in a
    line from ``radius`` pixels to 0 at ``end``, and never farther than 1.5 ``radius`` from where the scan had them: for
    errors of more than a pixel, of all positions or of some. :class:`RefinePositions` beside it does the rest.

    Raises:
        ValueError: a radius that is not above 0, or not ``0 <= begin < end``.
    """

    radius: float
    begin: int = 5
    end: int = 40
    trials: int = 8

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"radius: expected a number > 0, got {self.radius}")
        if not 0 <= self.begin < self.end:
            raise ValueError(f"begin, end: expected 0 <= begin < end, got {self.begin} and {self.end}")

    def __call__(self, engine: Engine, object: Tensor, probe: Tensor) -> Pair:
        number = len(engine.state.reports)
        if self.begin <= number < self.end:
            radius = self.radius * (self.end - number) / (self.end - self.begin)
            engine.anneal_positions(radius, object, probe, trials=self.trials, reach=1.5 * self.radius)
        return object, probe


@dataclass(frozen=True)
class Penalty:
    """``weight function(object, probe)``, a 0-d tensor that torch differentiates, as a term of
    :class:`MaximumLikelihood`'s loss, which is the mean over patterns of their losses.

    Raises:
        ValueError: a negative weight.

    Example:
        >>> from sem.ptycho import MaximumLikelihood, disk_probe, lines_object, raster_scan, simulate
        >>> scan, probe = simulate(lines_object(40, 10, seed=1), disk_probe(16), raster_scan(4, 4, 6))
        >>> smooth = Penalty(total_variation, weight=1.0)
        >>> len(MaximumLikelihood(scan, probe, constraints=[smooth]).run(1).reports)
        1
    """

    function: Callable[[Tensor, Tensor], Tensor]
    weight: float

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight: expected a number >= 0, got {self.weight}")


def total_variation(object: Tensor, probe: Tensor | None = None, *, edge: float = 1e-3) -> Tensor:
    """``sum sqrt(|d_y O|^2 + |d_x O|^2 + edge^2) - edge`` over pixels, of differences to the next row and column: small
    for objects of even areas with sharp borders. ``edge`` is the difference below which it is quadratic.

    Example:
        >>> step = torch.ones(3, 3) + 0j
        >>> step[:, 2] = 3
        >>> round(float(total_variation(step)), 1)
        6.0
    """
    down = torch.nn.functional.pad(torch.view_as_real(object.diff(dim=0)), (0, 0, 0, 0, 0, 1))
    right = torch.nn.functional.pad(torch.view_as_real(object.diff(dim=1)), (0, 0, 0, 1))
    return ((down.square() + right.square()).sum(-1) + edge**2).sqrt().sub(edge).sum()
