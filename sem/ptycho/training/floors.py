"""What is reached without learning anything: losses to print beside a network's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sem.ptycho.training.objective import PhysicsObjective, true_patches

_MOST = 256
"""Patterns that a floor is estimated from."""


def loss_floors(objective: PhysicsObjective, patterns: Tensor) -> dict[str, float]:
    """Mean losses of patterns, each alone: of an object of ``zeros``, of the best ``constant`` one, of the measured
    ``mean_pattern`` in place of each (amplitude losses alone), and, where the object is known, of itself: ``noise``.

    Args:
        objective: any but the supervised one, whose floors are ``zeros`` and ``noise`` = 0.
        patterns: numbers of the patterns; every so-manieth of many is taken.
    """
    patterns = patterns[:: max(1, len(patterns) // _MOST)]
    batch = patterns.unsqueeze(1)
    ones = torch.ones(len(patterns), objective.side, objective.side, dtype=torch.complex64, device=objective.device)

    def mean(patches: Tensor) -> float:
        return float(objective.compare(patches, batch)[1].double().mean())

    with torch.no_grad():
        found = {"zeros": mean(0 * ones), "constant": _least(lambda size: mean(size * ones))}
        if objective.kind in ("amplitude_mae", "amplitude"):
            found["mean_pattern"] = _mean_pattern(objective, patterns)
        if objective.data.truth is not None:
            found["noise"] = mean(true_patches(objective.data, patterns).to(ones.device))
    return found


def _mean_pattern(objective: PhysicsObjective, patterns: Tensor) -> float:
    data = objective.amplitudes[patterns].double()
    weight = objective.weight if objective.weight is None or objective.weight.dim() == 2 else objective.weight[patterns]
    off = data - data.mean(0)
    off = off.abs() if objective.kind == "amplitude_mae" else 0.5 * off.square()
    return float((off if weight is None else weight * off).sum((1, 2)).mean()) / objective.unit_loss


def _least(loss: Callable[[float], float]) -> float:
    from scipy.optimize import minimize_scalar  # which scikit-image brings

    return float(minimize_scalar(loss, bounds=(0.0, 4.0), method="bounded").fun)
