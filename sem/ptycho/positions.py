"""Where the probe really stood: Gauss-Newton steps of the positions, pattern by pattern."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sem.ops import Patches, exit_waves, shift_ramp
from sem.ptycho.scan import Scan

_RIDGE = 1e-3  # of the trace


@torch.no_grad()
def position_steps(scan: Scan, object: Tensor, probe: Tensor, *, damping: float = 0.5, limit: float = 0.5) -> Tensor:
    """A step of every position, float32 ``[J, 2]`` pixels: ``-damping H^-1 g`` of the amplitude loss.

    With ``d_a A = sum_m Re(conj(Psi_m) d_a Psi_m) / A``, the derivative of a modulus by a position along axis ``a``,
    ``g_a = sum w (A - X) d_a A`` and ``H_ab = sum w d_a A d_b A``; to ``H`` a thousandth of its trace is added.

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
    patches = scan.patches((object.shape[0], object.shape[1]))
    shift = scan.positions - scan.corners
    q = torch.fft.fftfreq(scan.side)
    spectrum = torch.fft.fft2(probe)
    steps = []
    for part in torch.arange(len(scan)).split(max(1, 2**22 // (8 * probe.numel()))):
        moved = shift_ramp(spectrum, shift[part])
        some = Patches(patches.corners[part], scan.side, object.shape)

        def far(spectrum: Tensor, some=some) -> Tensor:  # type: ignore[no-untyped-def]
            return torch.fft.fft2(exit_waves(object, torch.fft.ifft2(spectrum), some), norm="ortho")

        waves = far(moved)
        intensity = waves.abs().square().sum(1)
        if scan.background is not None:
            intensity = intensity + scan.background
        amplitude = intensity.sqrt()
        weight = torch.ones_like(amplitude[0]) if scan.weight is None else scan.weight
        weight = (weight if weight.dim() == 2 else weight[part]) * (amplitude > 0)
        slopes = []
        for along in (q.unsqueeze(1), q):
            change = (waves.conj() * far(-2j * math.pi * along * moved)).real.sum(1)
            slopes.append(torch.where(amplitude > 0, change / amplitude, 0))
        d = torch.stack(slopes, 1).flatten(2).double()
        w = weight.expand_as(amplitude).flatten(1).double().unsqueeze(1)
        off = (amplitude - scan.amplitudes[part]).flatten(1).double()
        gradient = (w * d * off.unsqueeze(1)).sum(2)
        hessian = (w * d) @ d.mT
        trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
        ridge = (_RIDGE * trace).clamp_min(1e-30).view(-1, 1, 1) * torch.eye(2, dtype=torch.float64)
        steps.append(-torch.linalg.solve(hessian + ridge, gradient))
    found = torch.cat(steps) if steps else torch.zeros(0, 2)
    return (damping * found).nan_to_num(0.0).clamp(-limit, limit).float()


def without_affine(positions: Tensor, truth: Tensor) -> Tensor:
    """``positions`` by the affine map that brings them nearest to ``truth``, both ``[J, 2]``: what no pattern can tell
    apart (a translation), and what a stage that is out of scale or askew does to all alike."""
    basis = torch.cat([positions.double(), torch.ones(len(positions), 1, dtype=torch.float64)], 1)
    return (basis @ torch.linalg.lstsq(basis, truth.double()).solution).to(truth.dtype)
