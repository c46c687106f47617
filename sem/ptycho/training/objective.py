"""What a network is trained by: its patches through the forward model, against the patterns themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sem.ops import Patches, PatternStatus, ptychographic_loss
from sem.ptycho.merging import merge_patches
from sem.ptycho.stitching import moved
from sem.ptycho.training.data import NetworkScan, root_mean_square


class PhysicsObjective:
    """The mean over patterns of a loss between the measured amplitudes and those of the predicted object.

    A batch is ``[groups, G]`` numbers of patterns. The patches of a group are merged by the probe's power, and all its
    patterns are computed from the merged object, at their positions; with ``G = 1`` every pattern stands alone. Losses
    are divided by a constant of the training set, never of the batch, so that a short batch weighs a pattern as a full
    one does: the amplitude losses by what an object of zeros costs, Poisson's by the mean counts. A network that makes
    NaN or Inf of a pattern has a loss that is not a number.

    Args:
        data: the scan.
        kind: ``amplitude_mae``, ``amplitude`` or ``poisson`` (:func:`sem.ops.ptychographic_loss`); or ``supervised``,
            the mean square of the patches' error against the truth, weighted by the probe's power.
        patterns: numbers of those that are trained on: inputs are divided by the root mean square of their amplitudes,
            losses by their constant.
        device: where it computes.
        full: patterns that a batch's sum of losses is divided by, whatever their number; None: that number.

    Raises:
        ValueError: ``supervised`` without a truth.
    """

    unit = "patterns"

    def __init__(
        self,
        data: NetworkScan,
        kind: str,
        patterns: Tensor,
        device: torch.device | str = "cpu",
        *,
        full: int | None = None,
    ) -> None:
        if kind == "supervised" and data.truth is None:
            raise ValueError(f"training.loss = 'supervised': expected a known object in {data.name}, got none")
        scan = data.scan
        self.data, self.kind, self.device, self.full = data, kind, torch.device(device), full
        self.rms, self.unit_loss = root_mean_square(scan, patterns), unit_loss(data, kind, patterns)
        self.side = scan.side
        self.inputs = data.inputs(self.rms).to(self.device)
        self.amplitudes = scan.amplitudes.to(self.device)
        self.weight = None if scan.weight is None else scan.weight.to(self.device)
        self.background = None if scan.background is None else scan.background.to(self.device)
        self.probe, self.power = data.probe.to(self.device), data.power.to(self.device)
        self.corners = scan.corners
        self.fraction = scan.positions - scan.corners
        self.between_pixels = bool(self.fraction.any())

    def __call__(self, model: nn.Module, batch: Tensor, diagnostics: Any) -> dict[str, Any]:
        total, _ = self.compare(self.patches(model, batch.flatten()), batch)
        return {"loss": total / (self.full or batch.numel()), "items_sum": batch.numel()}

    def report(self, totals: Mapping[str, float]) -> dict[str, float]:
        """``loss`` and the model's other means."""
        return {name: value for name, value in totals.items() if not name.endswith("_sum")}

    def patches(self, model: nn.Module, patterns: Tensor) -> Tensor:
        """What the model makes of some patterns, complex64 ``[B, N, N]``, each in its probe's frame."""
        return model(self.inputs[patterns.to(self.device)]).squeeze(1)

    def compare(self, patches: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of a batch whose patches are ``patches``: their sum, to be differentiated, and each, ``[B]``."""
        patterns = batch.flatten().to(self.device)
        if self.kind == "supervised":
            each = self._against_truth(patches, batch.flatten())
            return each.sum(), each.detach()
        alone = batch.shape[1] == 1
        canvas, positions = self._strip(patches) if alone else self._merged(patches, batch)
        found = ptychographic_loss(
            canvas,
            self.probe,
            positions.to(self.device),
            self.amplitudes[patterns],
            weight=self.weight if self.weight is None or self.weight.dim() == 2 else self.weight[patterns],
            background=self.background,
            kind=self.kind,
            scale=self.unit_loss if self.kind == "amplitude_mae" else 1.0,
            subpixel="fourier" if self.between_pixels and not alone else "nearest",
        )
        unit = 1.0 if self.kind == "amplitude_mae" else self.unit_loss
        # The operator leaves out what is no number; a network that makes no numbers at all would have no loss at all.
        lost = found.status == PatternStatus.NONFINITE
        total = torch.where(lost.any(), math.nan, found.total)
        return total / unit, torch.where(lost, math.nan, found.loss) / unit

    def _strip(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The patches below each other, and where they begin. In its probe's frame, a patch is at whole pixels."""
        starts = torch.arange(len(patches)).mul(self.side).float()
        return patches.flatten(0, 1), torch.stack([starts, torch.zeros_like(starts)], 1)

    def _merged(self, patches: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The groups' merged objects below each other, and the patterns' positions there."""
        patterns = batch.flatten()
        corners = self.corners[batch]
        corners = corners - corners.amin(1, keepdim=True)
        height, width = (corners.flatten(0, 1).amax(0) + self.side).tolist()
        corners[..., 0] += height * torch.arange(len(batch)).unsqueeze(1)
        corners = corners.flatten(0, 1)
        if self.between_pixels:
            patches = moved(patches, self.fraction[patterns].to(self.device))
        canvas = merge_patches(patches, self.power, Patches(corners, self.side, (height * len(batch), width)))
        return canvas, corners + self.fraction[patterns]

    def _against_truth(self, patches: Tensor, patterns: Tensor) -> Tensor:
        truth = true_patches(self.data, patterns).to(self.device)
        return (self.power * (patches - truth).abs().square()).sum((1, 2)) / self.unit_loss


def true_patches(data: NetworkScan, patterns: Tensor) -> Tensor:
    """The known object where some patterns were taken, complex64 ``[B, N, N]``."""
    assert data.truth is not None
    side, corners = data.scan.side, data.scan.corners[patterns].tolist()
    return torch.stack([data.truth[y : y + side, x : x + side] for y, x in corners])


def unit_loss(data: NetworkScan, kind: str, patterns: Tensor) -> float:
    """What a loss is divided by, from the patterns that are trained on: for ``amplitude_mae``, ``amplitude`` and
    ``supervised`` the mean loss of an object of zeros, for ``poisson`` the mean counts of a pattern."""
    if kind == "supervised":
        squares = data.power * true_patches(data, patterns).abs().square()
        return float(squares.sum((1, 2)).mean()) or 1.0
    amplitudes = data.scan.amplitudes[patterns].double()
    weight = data.scan.weight
    if weight is not None:
        amplitudes = torch.where((chosen := weight if weight.dim() == 2 else weight[patterns]) > 0, amplitudes, 0)
        amplitudes = amplitudes * (chosen if kind == "amplitude_mae" else chosen.sqrt())
    if kind == "amplitude_mae":
        return float(amplitudes.sum((1, 2)).mean()) or 1.0
    return float(amplitudes.square().sum((1, 2)).mean()) * (0.5 if kind == "amplitude" else 1.0) or 1.0
