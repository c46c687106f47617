"""Where the probe really stood: Gauss-Newton steps of the positions and random trials, pattern by pattern."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sem.ops import Patches, exit_waves, ptychographic_loss, shift_ramp
from sem.ptycho.scan import Scan

_RIDGE = 1e-3  # of the trace
_BLOCK_BYTES = 2**20  # of waves worked on at a time


class PositionSystem(NamedTuple):
    """Gauss-Newton's equations of every position, float64: ``gradient [J, 2]`` of the amplitude loss and ``hessian [J,
    2, 2]``."""

    gradient: Tensor
    hessian: Tensor

    @property
    def trace(self) -> Tensor:
        """How sharply a pattern tells its position, ``[J]``."""
        return self.hessian.diagonal(dim1=1, dim2=2).sum(1)

    def steps(self, *, damping: float = 0.5, limit: float = 0.5) -> Tensor:
        """``-damping H^-1 g``, float32 ``[J, 2]`` pixels, at most ``limit`` along each axis; to ``H`` a thousandth of
        its trace is added."""
        ridge = (_RIDGE * self.trace).clamp_min(1e-30).view(-1, 1, 1) * torch.eye(2, dtype=torch.float64)
        found = -torch.linalg.solve(self.hessian + ridge, self.gradient)
        return (damping * found).nan_to_num(0.0).clamp(-limit, limit).float()


@torch.no_grad()
def position_system(scan: Scan, object: Tensor, probe: Tensor) -> PositionSystem:
    """With ``d_a A = sum_m Re(conj(Psi_m) d_a Psi_m) / A``, the derivative of a modulus by a position along axis ``a``,
    ``g_a = sum w (A - X) d_a A`` and ``H_ab = sum w d_a A d_b A``.

    Args:
        scan: the patterns at the positions so far.
        object, probe: complex64 ``[H, W]`` and ``[M, N, N]``.
    """
    patches = scan.patches((object.shape[0], object.shape[1]))
    shift = scan.positions - scan.corners
    q = torch.fft.fftfreq(scan.side)
    spectrum = torch.fft.fft2(probe)
    gradients, hessians = [torch.zeros(0, 2, dtype=torch.float64)], [torch.zeros(0, 2, 2, dtype=torch.float64)]
    for part in torch.arange(len(scan)).split(max(1, _BLOCK_BYTES // (8 * probe.numel()))):
        moved = shift_ramp(spectrum, shift[part])
        some = Patches(patches.corners[part], scan.side, object.shape)

        def far(spectrum: Tensor, some: Patches = some) -> Tensor:
            waves = torch.fft.fft2(exit_waves(object, torch.fft.ifft2(spectrum), some), norm="ortho")
            return torch.view_as_real(waves)

        waves = far(moved)
        intensity = waves.square().sum((1, -1))
        if scan.background is not None:
            intensity = intensity + scan.background
        amplitude = intensity.sqrt()
        weight = torch.ones_like(amplitude)
        if scan.weight is not None:
            weight = (scan.weight if scan.weight.dim() == 2 else scan.weight[part]).expand_as(amplitude).float()
        weight = (weight * (amplitude > 0)).flatten(1).unsqueeze(1)
        slopes = []
        for along in (q.unsqueeze(1), q):
            change = (waves * far(-2j * math.pi * along * moved)).sum((1, -1))
            slopes.append(torch.where(amplitude > 0, change / amplitude, 0).flatten(1))
        d = torch.stack(slopes, 1)
        off = (amplitude - scan.amplitudes[part]).flatten(1).unsqueeze(2)
        # a pixel of weight 0 may hold anything
        gradients.append((d @ torch.where(weight > 0, weight * off.mT, 0).mT).squeeze(2).double())
        hessians.append(((weight * d) @ d.mT).double())
    return PositionSystem(torch.cat(gradients), torch.cat(hessians))


def position_steps(scan: Scan, object: Tensor, probe: Tensor, *, damping: float = 0.5, limit: float = 0.5) -> Tensor:
    """A step of every position, float32 ``[J, 2]`` pixels: ``-damping H^-1 g`` of the amplitude loss, of
    :func:`position_system`.

    Args:
        scan: the patterns at the positions so far.
        object, probe: complex64 ``[H, W]`` and ``[M, N, N]``.
        limit: most pixels of a step, along each axis.

    Example:
        >>> from sem.ptycho import disk_probe, lines_object, raster_scan, simulate
        >>> truth = lines_object(56, 30, seed=0)
        >>> scan, probe = simulate(truth, disk_probe(24), raster_scan(4, 4, 5) + 1, photons=1e8)
        >>> moved = Scan(scan.amplitudes, scan.positions + 0.2)
        >>> bool((position_steps(moved, truth, probe, damping=1.0) + 0.2).abs().max() < 0.1)
        True
    """
    return position_system(scan, object, probe).steps(damping=damping, limit=limit)


@torch.no_grad()
def trial_offsets(
    scan: Scan,
    object: Tensor,
    probe: Tensor,
    radius: float,
    trials: int,
    generator: torch.Generator,
    *,
    about: Tensor,
    reach: float | Tensor,
) -> Tensor:
    """Of ``trials`` random offsets of every position, uniform on a disk of ``radius`` pixels, the one of the least
    amplitude loss, where that is below the loss without; else 0. float32 ``[J, 2]``.

    Args:
        scan: the patterns at the positions so far.
        object, probe: complex64 ``[H, W]`` and ``[M, N, N]``.
        generator: that the offsets are drawn from.
        about, reach: no position goes farther than ``reach`` pixels (a number, or ``[J]``) from ``about [J, 2]``.
    """
    if not radius >= 0:
        raise ValueError(f"radius: expected a number >= 0, got {radius}")
    here = scan.positions.float()
    most = torch.tensor(object.shape) - scan.side

    weight, floor = (None if tensor is None else tensor.float() for tensor in (scan.weight, scan.background))

    def loss_at(positions: Tensor) -> Tensor:
        found = ptychographic_loss(object, probe, positions, scan.amplitudes, weight=weight, background=floor)
        return found.loss

    best, least = here, loss_at(here)
    for _ in range(trials):
        turn, size = torch.rand(2, len(scan), generator=generator)
        offset = torch.polar(radius * size.sqrt(), 2 * math.pi * turn)
        tried = torch.minimum((here + torch.view_as_real(offset)).clamp_min(0), most)
        loss = loss_at(tried)
        better = (loss < least) & ((tried - about).norm(dim=1) <= reach)
        best, least = torch.where(better.unsqueeze(1), tried, best), torch.where(better, loss, least)
    return best - here


def affine_onto(positions: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """``positions`` by the affine map (shift, scale, rotation, shear) that brings them nearest to ``target``, both real
    ``[J, 2]``, by least squares with ``weight >= 0``, ``[J]``; None: all alike.

    Returns:
        ``[J, 2]`` in the dtype of ``target``.

    Example:
        >>> corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> torch.allclose(affine_onto(corners, 2 * corners + 3), 2 * corners + 3, atol=1e-5)
        True
    """
    basis = torch.cat([positions.double(), torch.ones(len(positions), 1, dtype=torch.float64)], 1)
    root = torch.ones(len(basis), 1).double() if weight is None else weight.double().clamp_min(0).sqrt().unsqueeze(1)
    return (basis @ torch.linalg.lstsq(root * basis, root * target.double()).solution).to(target.dtype)


def without_affine(positions: Tensor, truth: Tensor) -> Tensor:
    """:func:`affine_onto` the truth: without what no pattern can tell apart (a translation), and what a stage that is
    out of scale or askew does to all alike."""
    return affine_onto(positions, truth)
