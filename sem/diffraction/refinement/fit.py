"""One shot refined: stages that blur first and sharpen later, each a trust-region descent, and what came of it."""

from __future__ import annotations

import contextlib
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem.diffraction.comparison import plain
from sem.diffraction.refinement.background import background_terms
from sem.diffraction.refinement.coordinates import Coordinates
from sem.diffraction.refinement.likelihood import Profile
from sem.diffraction.refinement.objective import Objective, Sharpness
from sem.diffraction.refinement.panels import Exposure, image_of, panels_of, stacked
from sem.diffraction.refinement.settings import RefinementSettings
from sem.diffraction.refinement.shot import Shot
from sem.extras import how_to_install

CONVERGED, DIVERGED = "converged", "diverged"
_CLOSE = 1e-4
"""A fit has converged where another Newton step would gain so much of chi²: every parameter is within 0.01 sigma."""
_CLOSE_BLURRED = 0.005  # of the misfit, in stages that only lead to the next
_MOST_BLURRED = 15
_ROUGH, _IDLE = 0.1, 4
"""Of chi², and steps in a row that come no nearer: a model of nearest reflections jumps a little where the nearest one
changes and domains have no whole number of cells, and no step then leads to within ``_CLOSE``."""
_STALLED = 8  # steps in a row that were refused
_FIRST_RADIUS, _LARGEST_RADIUS = 0.5, 1.0  # of a step, in natural units
_FEWEST_CELLS = 2.0  # at fewer there are no spots
_SINGULAR = 1e-8  # of eigenvalues in units that make the diagonal 1; the differences of float32 images are no surer


class Stopped(Exception):
    """The refinement was asked to stop before it was done."""


@dataclass(frozen=True)
class Fit:
    """What a refinement found.

    Attributes:
        status: "converged" or "diverged".
        reason: in a sentence, for either.
        labels: names of the numbers that moved.
        start, values, deviations: of each label, in the parameter's unit; a deviation is infinite where the data does
            not determine the number.
        correlations: ``[labels, labels]``.
        scale: on the model's photons.
        background: the coefficients of its terms.
        chi_squared: Pearson's, over the pixels used, with the variances expected (Poisson) or given.
        freedom: pixels less everything that was fitted.
        deviance: twice the log-likelihood short of a perfect fit's, restraints left out.
        explained: share of the chi² beyond noise that the background alone leaves and the model takes away.
        pixels: used.
        panels: the pixels used on each panel, and their part of ``chi_squared``.
        steps: of the trust region, of every stage.
        images: computed, a gradient counted as three.
        seconds: CPU time of the process.
        before, after: expected counts with the starting and the final model, of the shape of the shot's.
        sigma: standard deviations of the counts, of that shape, those expected after the fit.
    """

    status: str
    reason: str
    labels: tuple[str, ...]
    start: tuple[float, ...]
    values: tuple[float, ...]
    deviations: tuple[float, ...]
    correlations: tuple[tuple[float, ...], ...]
    scale: float
    background: tuple[float, ...]
    chi_squared: float
    freedom: int
    deviance: float
    explained: float
    pixels: int
    panels: tuple[tuple[int, float], ...]
    steps: tuple[int, ...]
    images: int
    seconds: float
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    sigma: Tensor = field(repr=False)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name, without the images, for JSON: infinities as None."""
        found = {name: value for name, value in vars(self).items() if not isinstance(value, Tensor)}
        found |= {"goodness": self.goodness, "panel_goodness": self.panel_goodness}
        return {name: plain(value) for name, value in found.items()}

    @property
    def goodness(self) -> float:
        """chi² over its degrees of freedom: 1 for a model that is right and variances that are."""
        return self.chi_squared / self.freedom if self.freedom > 0 else math.nan

    @property
    def panel_goodness(self) -> tuple[float, ...]:
        """Each panel's chi² over its share of the degrees of freedom, by pixels; NaN where none is used."""
        share = self.freedom / self.pixels
        return tuple(chi / (share * used) if share > 0 and used else math.nan for used, chi in self.panels)


def refine(
    simulator: Exposure,
    shot: Shot,
    settings: RefinementSettings,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Fit:
    """Fit ``simulator``'s parameters to ``shot``, in place, scale and background profiled out of every evaluation.

    Minimises half of chi² or of the Poisson deviance, plus the restraints, by a trust region (scipy's ``trust-exact``)
    with exact gradients and Gauss-Newton curvature, in units in which each parameter changes the image by as much as it
    is. After a fit that diverged the parameters are those it ended with.

    Args:
        simulator: a :class:`~sem.diffraction.Simulator`, or several panels: :class:`~sem.diffraction.Panels`, whose
            detector moves as one by ``detector.distance``, ``detector.beam_center``, ``detector.rotation`` and
            ``detector.two_theta``. All pixels of all panels share one likelihood, one scale and one background.
        stopped: asked after each step; once it says True, :class:`Stopped` is raised.

    Example:
        >>> from sem.diffraction import Beam, Crystal, Detector, Reflections, Simulator
        >>> crystal = Crystal((70, 80, 90, 75, 85, 95), cells=(5, 5, 5), misset=(30, 40, 50))
        >>> simulator = Simulator(crystal, Beam(), Detector((64, 64), 0.3, 60, oversample=2), Reflections(60.0))
        >>> photons = torch.poisson(simulator().double() + 3, generator=torch.Generator().manual_seed(0))
        >>> _ = crystal.misset.data.add_(0.1)
        >>> shot = Shot(photons, torch.ones(64, 64, dtype=torch.bool))
        >>> fit = refine(simulator, shot, RefinementSettings(("crystal.misset",), stages=()))
        >>> fit.status, max(abs(value - true) for value, true in zip(fit.values, (30, 40, 50))) < 0.02
        ('converged', True)

    Raises:
        ValueError: settings that do not fit the experiment, a shot of another shape than its image, or a start that has
            nothing in common with the data.
        ImportError: scipy is not there.
        Stopped: see ``stopped``.
    """
    if simulator.crystal.shape == "tophat":
        raise ValueError("shape: expected square, round or gauss, whose spots have gradients, got tophat")
    started = time.process_time()
    shape = stacked([panel.computed() for panel in panels_of(simulator)]).shape
    if shot.counts.shape != shape:
        raise ValueError(f"counts: expected shape {list(shape)} as the model's image, got {list(shot.counts.shape)}")
    coordinates = Coordinates(simulator, settings.refine, settings.system, settings.restrain)
    if settings.likelihood == "poisson" and bool((shot.counts[shot.used] < 0).any()):
        raise ValueError("counts: expected none below 0 for the Poisson likelihood: check offset and trusted range")
    terms = background_terms(simulator, settings.background, settings.background_terms)
    everything = torch.ones(len(coordinates), dtype=torch.bool)
    compute = functools.partial(image_of, simulator)

    def objective(sharpness: Sharpness, moving: Tensor) -> Objective:
        return Objective(compute, coordinates, shot, terms, settings.likelihood, sharpness, moving)

    last = objective(Sharpness(), everything)
    origin = torch.zeros(len(coordinates), dtype=torch.float64)
    before = last.profile(origin)
    at, steps, images = coordinates.start, [], 0
    for factor in settings.stages:
        if not bool(coordinates.placed().any()):
            break
        stage = objective(Sharpness(factor, settings.blur * (factor - 1)), coordinates.placed())
        with _broadened(simulator, factor):
            stage.start_at(at)
            descent = _descend(stage, min(settings.iterations, _MOST_BLURRED), stopped, blurred=True)
        at = stage.coordinates_at(descent.x)
        steps.append(descent.steps)
        images += stage.images
        coordinates.set(at)
    before_image = _expected(simulator, coordinates, coordinates.start, before, terms)
    last.start_at(at)
    descent = _descend(last, settings.iterations, stopped, blurred=False)
    steps.append(descent.steps)
    images += last.images
    return _fit(last, descent, coordinates, simulator, shot, settings, terms, before_image, steps, images, started)


@dataclass
class _Descent:
    x: Tensor
    steps: int = 0
    decrement: float = math.inf
    close: bool = False
    rough: bool = False
    stalled: bool = False


def _descend(objective: Objective, most: int, stopped: Callable[[], bool], *, blurred: bool) -> _Descent:
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise ImportError(f"refinement needs scipy: {how_to_install('crystallography')}") from None
    descent = _Descent(torch.zeros_like(objective.units))
    refused = idle = 0

    def after_step(intermediate_result: Any) -> None:
        nonlocal refused, idle
        if stopped():
            raise Stopped
        x = _tensor(intermediate_result.x)
        refused = refused + 1 if bool((x == descent.x).all()) and descent.steps else 0
        descent.x, descent.steps = x, descent.steps + 1
        gradient, curvature = objective.gradient(x), objective.curvature(x)
        last = descent.decrement
        descent.decrement = float(
            gradient @ torch.linalg.lstsq(curvature, gradient[:, None], driver="gelsd").solution[:, 0]
        )
        value = objective.value(x)
        wanted = _CLOSE_BLURRED * value if blurred else _CLOSE * objective.noise(x)
        descent.close = descent.decrement <= max(wanted, 6 * objective.rounding(x))
        idle = idle + 1 if descent.decrement > last / 2 else 0
        descent.rough = idle >= _IDLE and descent.decrement <= _ROUGH * objective.noise(x)
        descent.stalled = refused >= _STALLED
        if descent.close or descent.rough or descent.stalled:
            raise StopIteration

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a limit reached, which the caller sees
        minimize(
            lambda x: objective.value(_tensor(x)),
            descent.x.numpy(),
            jac=lambda x: objective.gradient(_tensor(x)).numpy(),
            hess=lambda x: objective.curvature(_tensor(x)).numpy(),
            method="trust-exact",
            callback=after_step,
            options={
                "initial_trust_radius": _FIRST_RADIUS,
                "max_trust_radius": _LARGEST_RADIUS,
                "maxiter": most,
                "gtol": 1e-100,  # no step from where there is no slope at all
            },
        )
    return descent


def _fit(
    objective: Objective,
    descent: _Descent,
    coordinates: Coordinates,
    simulator: Exposure,
    shot: Shot,
    settings: RefinementSettings,
    terms: Tensor,
    before: Tensor,
    steps: list[int],
    images: int,
    started: float,
) -> Fit:
    profile = objective.profile(descent.x)
    at = objective.coordinates_at(descent.x)
    noise = objective.noise(descent.x)
    covariance, undetermined = _covariance(objective.curvature(descent.x))
    deviations = covariance.diagonal().sqrt()
    correlations = covariance / deviations / deviations.unsqueeze(1)
    deviations = deviations * math.sqrt(noise) * objective.units * coordinates.slopes(at).abs()
    deviations[undetermined] = math.inf
    freedom = objective.used - len(at) - int(profile.free.sum())
    residual = objective.counts - profile.expected
    misfit = profile.weight * residual.square()
    chi_squared = float(misfit.sum())
    explained = _explained(objective, descent.x, chi_squared, freedom)
    status, reason = _verdict(objective, descent, profile, explained, settings, undetermined)
    after = _expected(simulator, coordinates, at, profile, terms)
    if shot.variance is not None:
        sigma = shot.variance.clamp(min=0).sqrt()
    elif settings.likelihood == "poisson":
        sigma = after.clamp(min=float(profile.expected.min())).sqrt()
    else:
        sigma = torch.full_like(after, math.sqrt(noise))
    return Fit(
        status=status,
        reason=reason,
        labels=tuple(coordinates.labels),
        start=tuple(coordinates.values(coordinates.start).tolist()),
        values=tuple(coordinates.values(at).tolist()),
        deviations=tuple(deviations.tolist()),
        correlations=tuple(tuple(row) for row in correlations.tolist()),
        scale=float(profile.coefficients[0]),
        background=tuple(profile.coefficients[1:].tolist()),
        chi_squared=chi_squared,
        freedom=freedom,
        deviance=2 * profile.value,
        explained=explained,
        pixels=objective.used,
        panels=_by_panel(shot.used, misfit),
        steps=tuple(steps),
        images=images,
        seconds=time.process_time() - started,
        before=before,
        after=after,
        sigma=sigma,
    )


def _by_panel(used: Tensor, misfit: Tensor) -> tuple[tuple[int, float], ...]:
    """How many pixels are used on each panel, and the sum of their ``misfit`` ``[pixels]``."""
    counted = [int(panel.sum()) for panel in used.reshape(-1, *used.shape[-2:])]
    return tuple((len(part), float(part.sum())) for part in misfit.split(counted))


def _explained(objective: Objective, x: Tensor, chi_squared: float, freedom: int) -> float:
    """How much of what a fit without the model leaves unexplained the model explains, at one set of variances."""
    profile = objective.profile(x)
    residual = objective.counts - objective.without_model().expected
    without = float((profile.weight * residual.square()).sum())
    expected = freedom if objective.variances_known else 0  # of noise, which no model explains
    return 1 - max(chi_squared - expected, 0.0) / max(without - expected, 1e-300) if without > expected else 0.0


def _verdict(
    objective: Objective,
    descent: _Descent,
    profile: Profile,
    explained: float,
    settings: RefinementSettings,
    undetermined: Tensor,
) -> tuple[str, str]:
    if float(profile.coefficients[0]) <= 0:
        return DIVERGED, "the best scale of the model is 0: model and data have nothing in common"
    close = descent.close or descent.rough
    if descent.stalled and not close:
        return DIVERGED, f"no step lowers the misfit, {descent.decrement:.3g} of chi² from a minimum by its curvature"
    if not close:
        return DIVERGED, f"still {descent.decrement:.3g} of chi² from a minimum after {descent.steps} steps"
    if explained < settings.explained:
        share = f"{100 * explained:.1f} % of what the background leaves, less than {100 * settings.explained:g} %"
        return DIVERGED, f"the model explains {share}: a minimum, but not that of the right model"
    if bool(undetermined.any()):
        named = ", ".join(label for label, lost in zip(objective.labels, undetermined.tolist(), strict=True) if lost)
        return CONVERGED, f"the data does not determine all of {named}"
    return CONVERGED, f"another step would gain {max(descent.decrement, 0.0):.2g} of chi²"


def _covariance(curvature: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of a curvature, without the directions that have none, and which coordinates have a part in those."""
    scale = curvature.diagonal().sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    values, vectors = torch.linalg.eigh(curvature / scale / scale.unsqueeze(1))
    flat = values <= _SINGULAR * values.max()
    inverse = torch.where(flat, 0.0, 1 / torch.where(flat, 1.0, values))
    covariance = (vectors * inverse) @ vectors.T / scale / scale.unsqueeze(1)
    return covariance, (vectors[:, flat].abs() > 0.1).any(dim=1)


@contextlib.contextmanager
def _broadened(simulator: Exposure, factor: float) -> Iterator[None]:
    """Spots ``factor`` times broader: domains of so many fewer cells along each axis, of two at least."""
    cells = simulator.crystal.cells
    kept = cells.detach().clone()
    with torch.no_grad():
        cells.copy_(torch.minimum(kept, (kept / factor).clamp(min=_FEWEST_CELLS)))
    try:
        yield
    finally:
        with torch.no_grad():
            cells.copy_(kept)


@torch.no_grad()
def _expected(simulator: Exposure, coordinates: Coordinates, at: Tensor, profile: Profile, terms: Tensor) -> Tensor:
    """The counts expected in every pixel, used or not."""
    coordinates.set(at)
    image = image_of(simulator).to(torch.float64)
    return profile.coefficients[0] * image + (terms @ profile.coefficients[1:]).reshape(image.shape)


def _tensor(x: Any) -> Tensor:
    return torch.from_numpy(np.array(x, dtype=np.float64))
