"""How well a model image fits counts, with its scale and a background profiled out of every evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LIKELIHOODS = ("poisson", "gaussian")
_MOST_STEPS = 100
_SHARPNESS = 1e-12  # of the profile: what another Newton step could still gain, relative to the value


@dataclass(frozen=True)
class Profile:
    """The best scale and background for one model image.

    Attributes:
        value: minus the log-likelihood, up to a constant that makes a perfect fit 0: half of chi² or of the deviance.
        coefficients: ``[1 + terms]``, the scale and the background's.
        free: bool, which of them are not held at 0.
        expected: ``[pixels]``, the counts expected.
        slope: ``[pixels]``, derivative of ``value`` by the expected counts.
        weight: ``[pixels]``, Fisher's information on the expected counts: 1 / variance.
    """

    value: float
    coefficients: Tensor
    free: Tensor
    expected: Tensor
    slope: Tensor
    weight: Tensor


def gaussian_profile(design: Tensor, counts: Tensor, weight: Tensor) -> Profile:
    """Weighted least squares over the columns of ``design`` ``[pixels, 1 + terms]``: model image, background's terms.

    The scale (the first coefficient) is held at 0 where the best one is below 0.
    """
    free = torch.ones(design.shape[1], dtype=torch.bool)
    coefficients = _least_squares(design, counts, weight)
    if float(coefficients[0]) < 0:
        free[0] = False
        coefficients = torch.zeros_like(coefficients)
        if design.shape[1] > 1:
            coefficients[1:] = _least_squares(design[:, 1:], counts, weight)
    expected = design @ coefficients
    residual = counts - expected
    value = float((weight * residual.square()).sum()) / 2
    return Profile(value, coefficients, free, expected, -weight * residual, weight)


def poisson_profile(design: Tensor, counts: Tensor, start: Tensor | None = None) -> Profile:
    """The Poisson likelihood's maximum over coefficients >= 0 of ``design``'s columns, by projected Newton steps.

    The problem is convex; the steps end where another one would gain less than 1e-12 of the value. A floor of a
    millionth of the mean count under the expected counts keeps logarithms finite where model and background are dark.
    """
    floor = 1e-6 * float(counts.mean()) + 1e-30
    sums = design.sum(dim=0)
    known = sums > 0
    if start is None or not bool((start[known] > 0).any()):
        start = torch.where(known, float(counts.sum()) / max(int(known.sum()), 1) / sums.clamp(min=1e-300), 0.0)
    at = start.clamp(min=0.0)
    seen = counts > 0
    constant = (counts[seen] * counts[seen].log() - counts[seen]).sum()

    def value(expected: Tensor) -> Tensor:
        return expected.sum() - (counts[seen] * expected[seen].log()).sum() + constant

    expected = design @ at + floor
    now = value(expected)
    free = known
    for _ in range(_MOST_STEPS):
        slope = design.T @ (1 - counts / expected)
        free = known & ((at > 0) | (slope < 0))
        if not bool(free.any()):
            break
        columns = design[:, free]
        # the mean of both curvatures, expected and observed: the one is timid, the other bold far from the optimum
        curvature = (columns * (0.5 * (1 + counts / expected) / expected).unsqueeze(1)).T @ columns
        step = torch.zeros_like(at)
        step[free] = -_solve(curvature, slope[free])
        gain = -float(slope @ step)
        if gain <= _SHARPNESS * (1 + abs(float(now))):
            break
        length, moved = 1.0, False
        while length > 1e-10:
            trial = (at + length * step).clamp(min=0.0)
            trial_expected = design @ trial + floor
            trial_value = value(trial_expected)
            if float(trial_value) < float(now):
                moved = True
                break
            length /= 2
        if not moved:
            break
        at, expected, now = trial, trial_expected, trial_value
    return Profile(float(now), at, free, expected, 1 - counts / expected, 1 / expected)


def _least_squares(design: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
    weighted = design * weight.unsqueeze(1)
    return _solve(weighted.T @ design, weighted.T @ counts)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution of a symmetric system whose columns may be alike or 0, after scaling them to length 1."""
    scale = matrix.diagonal().clamp(min=0).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    scaled = matrix / scale / scale.unsqueeze(1)
    return torch.linalg.lstsq(scaled, (right / scale).unsqueeze(1), driver="gelsd").solution[:, 0] / scale
