"""Whether a network's training came to nothing: the same image, or the same patch, whatever the data.

A score alone does not say so: every constant image has the same one. The checks are pure functions of an image, of
patches and of losses; :func:`judge` asks those it has data for and gives one verdict, to print and to save.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sem.ptycho.metrics import floors, scores

FLAT_AMPLITUDE = 0.02
"""Relative standard deviation of the amplitudes below which an image is a constant."""
NEAR_FLOOR = 0.02
"""``amp_ssim`` no further than that from the constant's says nothing."""
NO_CORRELATION = 0.1
"""``amp_r`` below which an image near its floor is taken for a constant, and what a twin must be ahead by."""
BLIND = 0.05
"""Share of the patches' spread that lies between patterns below which a network does not look at them."""
FLAT_LOSS = 0.98
"""Of the best constant object's loss: one that is not below has learned nothing."""
DIVERGED = 10.0
"""Times the best loss."""
SPIKE = 3.0
"""Times the running median of the losses before."""
WINDOW = 25
"""Losses of that median."""
REASONS = ("constant", "twin", "blind", "nonfinite", "flat", "diverged")
"""Why a run has collapsed: fields of the checks."""


@dataclass(frozen=True)
class ImageCheck:
    """``constant``, ``twin`` and ``nonfinite``, and the numbers that say so; those that need a truth are None without
    one, and all are where the image is not finite.

    ``correlation`` with the truth, ``twin_correlation`` with ``conj(t(-r))``, both from 0 to 1.
    """

    constant: bool
    twin: bool | None
    nonfinite: bool
    amp_rel_std: float | None = None
    amp_r: float | None = None
    amp_ssim: float | None = None
    amp_ssim_floor: float | None = None
    correlation: float | None = None
    twin_correlation: float | None = None


def check_image(image: Tensor, truth: Tensor | None = None, crop: int = 0) -> ImageCheck:
    """Whether a stitched image is a constant, or the truth's twin.

    It is a constant where its amplitudes vary by less than 2 % of their mean or, against a truth, where ``amp_ssim`` is
    within 0.02 of a constant's and ``amp_r`` below 0.1. Against a truth whose own amplitudes are that flat, an object
    of phase alone, the correlation of the phases decides instead, below 0.1; without a truth such an object's image
    looks like a constant, so do not ask. A twin correlates with ``conj(t(-r))``, wherever that lies, better than with
    ``t``, by more than 0.1: of images that are neither, one of the two is always a little ahead. Phase ramps are for
    :func:`sem.ptycho.aligned` to take out first; a network makes none.

    Args:
        image, truth: complex ``[H, W]``. crop: pixels inside each edge.

    Raises:
        ValueError: as :func:`sem.ptycho.scores`, except for an image that is not finite, which is a finding.

    Example:
        >>> check_image(torch.full((32, 32), 0.3j)).constant
        True
    """
    inside = (slice(crop, -crop or None),) * 2
    if image.dim() != 2 or image[inside].numel() == 0:
        raise ValueError(f"image: expected [H, W], larger than its crop of {crop}, got {list(image.shape)}")
    if not bool(image[inside].isfinite().all()):
        return ImageCheck(constant=False, twin=None, nonfinite=True)
    if truth is None:
        rel_std = _rel_std(image[inside])
        return ImageCheck(rel_std < FLAT_AMPLITUDE, None, False, rel_std)
    found, floor = scores(image, truth, crop), floors(truth, crop)
    if floor.amp_ssim is None or _rel_std(truth[inside]) < FLAT_AMPLITUDE:
        constant = found.phase_r is None or found.phase_r < NO_CORRELATION
    else:
        assert found.amp_ssim is not None
        near = abs(found.amp_ssim - floor.amp_ssim) <= NEAR_FLOOR and found.amp_r < NO_CORRELATION
        constant = found.amp_rel_std < FLAT_AMPLITUDE or near
    p, t = image.detach()[inside], truth.detach()[inside]
    straight, turned = _correlation(p, t), _correlation(p, t.flip(0, 1).conj())
    twin = turned > straight + NO_CORRELATION
    return ImageCheck(
        constant, twin, False, found.amp_rel_std, found.amp_r, found.amp_ssim, floor.amp_ssim, straight, turned
    )


def _rel_std(image: Tensor) -> float:
    amplitudes = image.detach().abs().double()
    return float(amplitudes.std(correction=0) / amplitudes.mean().clamp_min(1e-300))


def _correlation(image: Tensor, truth: Tensor) -> float:
    """The largest over all shifts, of images less their means; 0 where one of the two is constant."""
    p, t = (whole.to(torch.complex128) for whole in (image, truth))
    norms = [float((whole - whole.mean()).norm()) for whole in (p, t)]
    if any(norm <= 1e-6 * float(whole.norm()) for norm, whole in zip(norms, (p, t), strict=True)):
        return 0.0
    p, t = p - p.mean(), t - t.mean()
    return float(torch.fft.ifft2(torch.fft.fft2(p) * torch.fft.fft2(t).conj()).abs().max()) / (norms[0] * norms[1])


@dataclass(frozen=True)
class PatchCheck:
    """``blind``, ``twin`` and ``nonfinite``, and the numbers that say so: ``spread``, how much patches differ between
    patterns, of how much their pixels vary at all; the median ``correlation`` with the true patches and with their
    twins, None where none were given."""

    blind: bool
    twin: bool | None
    nonfinite: bool
    spread: float | None = None
    correlation: float | None = None
    twin_correlation: float | None = None


def check_patches(patches: Tensor, truth: Tensor | None = None, light: Tensor | None = None) -> PatchCheck:
    """Whether a network gives one patch for all patterns, ``std over patterns / std over everything < 0.05``, or twins.

    Under a probe that is its own twin, a pattern alone does not tell a patch from its twin, ``conj(t(-r))`` about the
    pixel ``[N // 2, N // 2]``: patches are twins where, in the median, they correlate better with those, by more than
    0.1.

    Args:
        patches: complex ``[J, N, N]`` of two patterns or more, such as the validation set's. A single constant is
            blind, too.
        truth: the true patches, where they are known.
        light: real ``[N, N]``, ``|P|^2``, to weight pixels in the correlation; None: all alike.

    Raises:
        ValueError: fewer than two patches, or shapes that do not fit.

    Example:
        >>> check_patches(torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(5, 8, 8))
        PatchCheck(blind=True, twin=None, nonfinite=False, spread=0.0, correlation=None, twin_correlation=None)
    """
    if patches.dim() != 3 or len(patches) < 2 or patches.numel() == 0:
        raise ValueError(f"patches: expected [J, N, N] of 2 patterns or more, got {list(patches.shape)}")
    for name, other, shape in (("truth", truth, patches.shape), ("light", light, patches.shape[1:])):
        if other is not None and other.shape != shape:
            raise ValueError(f"{name}: expected shape {list(shape)}, got {list(other.shape)}")
    values = patches.detach().to(torch.complex128)
    if not bool(values.isfinite().all()):
        return PatchCheck(blind=False, twin=None, nonfinite=True)
    everything = float((values - values.mean()).abs().square().mean().sqrt())
    between = float((values - values.mean(0)).abs().square().mean().sqrt())
    size = float(values.abs().square().mean().sqrt())
    spread = between / everything if everything > 1e-9 * size else 0.0
    if truth is None:
        return PatchCheck(spread < BLIND, None, False, spread)
    weight = torch.ones(patches.shape[1:]) if light is None else light.detach()
    turned_about = [(2 * (side // 2) - torch.arange(side)) % side for side in patches.shape[1:]]
    twins = truth.conj()[:, turned_about[0]][:, :, turned_about[1]]
    straight, turned = (float(_weighted_correlations(values, t, weight).median()) for t in (truth, twins))
    return PatchCheck(spread < BLIND, turned > straight + NO_CORRELATION, False, spread, straight, turned)


def _weighted_correlations(patches: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Of each patch, ``[J]``; 0 where one of the two is constant."""
    w = weight.double() / weight.double().sum()
    p, t = (whole - (w * whole).sum((1, 2), keepdim=True) for whole in (patches, truth.to(torch.complex128)))
    power = (w * p.abs().square()).sum((1, 2)) * (w * t.abs().square()).sum((1, 2))
    inner = (w * p * t.conj()).sum((1, 2)).abs()
    return torch.where(power > 0, inner / power.clamp_min(1e-300).sqrt(), 0)


@dataclass(frozen=True)
class LossCheck:
    """``flat`` (None: too early to say, or no constant's loss to compare with), ``diverged``, the steps at which a
    ``spikes`` began, and ``best`` and ``last`` loss, the last a median where there are many; None: none was finite."""

    flat: bool | None
    diverged: bool
    spikes: tuple[int, ...]
    best: float | None
    last: float | None


def check_losses(
    losses: Sequence[float], *, best_constant: float | None = None, steps_planned: int | None = None
) -> LossCheck:
    """What a history of losses says, a number for each step or each validation.

    The *last* loss is the median of the last fiftieth of the history, so that a single batch does not decide.

    - flat: a tenth of the steps are done, and the last is at least 0.98 of the loss of the best constant object;
    - diverged: a loss is not finite, or all of the last fiftieth are above ten times the best;
    - spike: a loss above three times the median of the (up to 25, at least 5) before it, to below which it came back.

    Args:
        best_constant: the loss of the constant object that fits best.
        steps_planned: of the whole run; None: the history is all of it.

    Raises:
        ValueError: there are no losses.

    Example:
        >>> check_losses([1.0, 0.9, 0.5, 0.4, 0.4, 0.4, 2.0, 0.4, 0.3], best_constant=0.8)
        LossCheck(flat=False, diverged=False, spikes=(6,), best=0.3, last=0.3)
    """
    values = [float(loss) for loss in losses]
    if not values:
        raise ValueError("losses: expected at least one, got none")
    finite = [loss for loss in values if math.isfinite(loss)]
    best = min(finite, default=None)
    tail = values[-max(1, len(values) // 50) :]
    last = median(tail) if all(math.isfinite(loss) for loss in tail) else None
    diverged = len(finite) < len(values) or (best is not None and all(loss > DIVERGED * best for loss in tail))
    flat: bool | None = None
    if best_constant is not None and last is not None and 10 * len(values) >= (steps_planned or len(values)):
        flat = last >= FLAT_LOSS * best_constant
    return LossCheck(flat, diverged, _spikes(values), best, last)


def _spikes(values: list[float]) -> tuple[int, ...]:
    begun: list[int] = []
    step = 5
    while step < len(values):
        usual = median(values[max(0, step - WINDOW) : step])
        if not values[step] > SPIKE * usual:
            step += 1
            continue
        back = next((later for later in range(step + 1, len(values)) if values[later] <= SPIKE * usual), None)
        if back is None:
            break
        begun.append(step)
        step = back
    return tuple(begun)


@dataclass(frozen=True)
class Verdict:
    """What the checks found, each None where there was nothing to check.

    A run has ``collapsed`` where its image is a constant, image or patches are twins, its patches do not depend on the
    patterns, its losses stayed flat or diverged, or numbers are not finite; ``reasons`` says which. A spike that came
    back is no collapse.
    """

    image: ImageCheck | None = None
    patches: PatchCheck | None = None
    losses: LossCheck | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of ``constant``, ``twin``, ``blind``, ``nonfinite``, ``flat`` and ``diverged`` those that hold."""
        checks = [asdict(check) for check in (self.image, self.patches, self.losses) if check is not None]
        return tuple(reason for reason in REASONS if any(check.get(reason) for check in checks))

    @property
    def collapsed(self) -> bool:
        """Whether there is any reason to say so."""
        return bool(self.reasons)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``collapsed``, ``reasons`` and the numbers of each check."""
        return {"collapsed": self.collapsed, "reasons": list(self.reasons), **asdict(self)}

    def to_json(self) -> str:
        """:meth:`as_dict` as indented JSON."""
        return json.dumps(self.as_dict(), allow_nan=False, indent=2)

    def __str__(self) -> str:
        parts = [f"collapsed: {', '.join(self.reasons)}" if self.collapsed else "not collapsed"]
        image = self.image
        if image is not None and image.amp_rel_std is not None:
            parts.append(f"amplitudes vary by {100 * image.amp_rel_std:.1f} %")
            if image.amp_ssim is not None:
                parts.append(f"amp_ssim {image.amp_ssim:.3f} (a constant's {image.amp_ssim_floor:.3f})")
            if image.correlation is not None:
                parts.append(f"r {image.correlation:.2f} (with the twin {image.twin_correlation:.2f})")
        if self.patches is not None and self.patches.spread is not None:
            parts.append(f"{100 * self.patches.spread:.1f} % of the patches' spread is between patterns")
        if self.losses is not None:
            parts += [
                f"{name} loss {v:.4g}" for name in ("best", "last") if (v := getattr(self.losses, name)) is not None
            ]
            if self.losses.spikes:
                parts.append(f"{len(self.losses.spikes)} spikes")
        return "; ".join(parts)


def judge(
    *,
    image: Tensor | None = None,
    truth: Tensor | None = None,
    crop: int = 0,
    patches: Tensor | None = None,
    true_patches: Tensor | None = None,
    light: Tensor | None = None,
    losses: Sequence[float] | None = None,
    best_constant: float | None = None,
    steps_planned: int | None = None,
) -> Verdict:
    """All checks for which there are data: :func:`check_image`, :func:`check_patches`, :func:`check_losses`.

    Example:
        >>> verdict = judge(image=torch.ones(32, 32) + 0j, losses=[1.0, 1.0, 0.99], best_constant=1.0)
        >>> print(verdict)
        collapsed: constant, flat; amplitudes vary by 0.0 %; best loss 0.99; last loss 0.99
    """
    return Verdict(
        None if image is None else check_image(image, truth, crop),
        None if patches is None else check_patches(patches, true_patches, light),
        None if losses is None else check_losses(losses, best_constant=best_constant, steps_planned=steps_planned),
    )
