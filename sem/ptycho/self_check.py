"""Checks of an installation in a few seconds: what the operators, the simulation and the engines must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sem.ops import Patches, PtychographicLoss, exit_waves, overlap_add, ptychographic_loss, shift_ramp
from sem.ptycho.pie import PIE
from sem.ptycho.presets import Simulation
from sem.ptycho.simulation import far_intensity
from sem.training import devices

SIDE, SHAPE, MODES = 24, (47, 53), 2


class Check(NamedTuple):
    """What must hold: ``measure()`` is at most ``limit``."""

    name: str
    measure: Callable[[], float]
    limit: float


def parseval() -> float:
    """How far a probe's counts differ between its own frame and the detector, between pixels too."""
    object, probe, positions = _problem()
    ones = torch.ones_like(object)
    counts = far_intensity(ones, probe, positions).double().sum((1, 2))
    power = probe.abs().double().square().sum()
    return float((counts / power - 1).abs().max())


def adjoint_of_exit_waves() -> float:
    """``<A x, y> = <x, A^H y>``, by object and by probe."""
    object, probe, positions = _problem()
    patches = Patches((positions + 0.5).floor().long(), SIDE, SHAPE)
    y = _complex(len(positions), MODES, SIDE, SIDE, seed=7)
    sums = overlap_add(y, object, probe, patches)
    right = _inner(exit_waves(object, probe, patches), y)
    scale = float(exit_waves(object, probe, patches).norm() * y.norm())
    return max(abs(_inner(object, sums.to_object) - right), abs(_inner(probe, sums.to_probe) - right)) / scale


def adjoint_of_shift() -> float:
    """That a shift back undoes a shift, and is its adjoint."""
    _, probe, positions = _problem()
    spectrum = torch.fft.fft2(probe)
    shift = positions - (positions + 0.5).floor()
    moved = shift_ramp(spectrum, shift)
    y = _complex(*moved.shape, seed=8)
    back = torch.stack([shift_ramp(wave, -one.view(1, 2))[0] for wave, one in zip(y, shift, strict=True)])
    right = sum(_inner(spectrum, wave) for wave in back)
    return abs(_inner(moved, y) - right) / float(moved.norm() * y.norm())


def finite_differences() -> float:
    """Gradients to object, probe, positions and background against central differences of the loss."""
    object, probe, positions = _problem()
    data = (far_intensity(object, probe, positions) * 1.3 + 2).sqrt()
    floor = torch.full((SIDE, SIDE), 0.5)
    arguments = [object, probe, positions, floor]

    def found(given: list[Tensor]) -> PtychographicLoss:
        object, probe, positions, floor = given
        return ptychographic_loss(object, probe, positions, data, background=floor, kind="poisson")

    def loss(given: list[Tensor]) -> Tensor:
        return found(given).loss.double().sum()

    leaves = [tensor.clone().requires_grad_() for tensor in arguments]
    found(leaves).total.backward()
    worst = 0.0
    for k, (tensor, size) in enumerate(zip(arguments, (3e-3, 3e-3, 1e-3, 1e-2), strict=True)):
        gradient = leaves[k].grad
        assert gradient is not None
        step = size * gradient / gradient.abs().max() * float(tensor.abs().mean() if k != 2 else 1)
        ahead, behind = ([*arguments[:k], tensor + sign * step, *arguments[k + 1 :]] for sign in (1, -1))
        difference = float(loss(ahead) - loss(behind)) / 2
        expected = float((gradient.conj() * step).real.double().sum())
        worst = max(worst, abs(difference - expected) / abs(expected))
    return worst


def counts() -> float:
    """How far a simulated scan's mean counts are off what was asked for, in standard deviations of the noise; and
    ``chi^2`` of the truth, in those of its own, whichever is more."""
    settings = Simulation(side=SIDE, rows=6, columns=6, step=4, lines=30, photons=1e6)
    made = settings.make()
    assert made.object is not None and made.probe is not None
    data = made.scan.amplitudes.double()
    total = data.square().sum()
    off = float((total / len(data) - settings.photons).abs() / (settings.photons / len(data)) ** 0.5)
    expected = far_intensity(made.object, made.probe, made.scan.positions).double()
    bright = expected > 100  # where the square root of a count has the variance 1/4
    misfit = 4 * (expected.sqrt() - data)[bright].square()
    return max(off, float((misfit.mean() - 1).abs() / (2 / len(misfit)) ** 0.5))


def oracle() -> float:
    """That true patches, each with its weight, come together as the true object."""
    object, probe, positions = _problem()
    patches = Patches((positions + 0.5).floor().long(), SIDE, SHAPE)
    sums = overlap_add(exit_waves(object, probe, patches), object, probe, patches)
    lit = sums.illumination > 0.05 * sums.illumination.max()
    found = sums.to_object / sums.illumination.clamp_min(1e-30)
    return float((found - object)[lit].abs().max() / object.abs().max())


def fixed_point() -> float:
    """That a sweep from the truth stays there, where there is no noise."""
    made = Simulation(side=SIDE, rows=5, columns=5, step=4, lines=30, noise=False).make()
    assert made.object is not None and made.probe is not None
    state = PIE(made.scan, made.probe, made.object, probe_from=0).run(1)
    return float((state.object - made.object).norm() / made.object.norm())


def threads() -> float:
    """1 if loss or gradients have other bits on two or three threads than on one."""
    object, probe, positions = _problem()
    data = far_intensity(object, probe, positions).sqrt()

    def bits() -> list[bytes]:
        leaves = [tensor.clone().requires_grad_() for tensor in (object, probe, positions)]
        found = ptychographic_loss(leaves[0], leaves[1], leaves[2], data + 0.1)
        found.total.backward()
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
        return [torch.view_as_real(t).numpy().tobytes() if t.is_complex() else t.numpy().tobytes() for t in grads] + [
            found.loss.numpy().tobytes()
        ]

    made = []
    for count in (1, 2, 3):
        with devices.threads(count):
            made.append(bits())
    return float(any(other != made[0] for other in made[1:]))


CHECKS = (
    Check("Parseval: counts in the frame and on the detector", parseval, 2e-6),
    Check("adjointness of exit_waves and overlap_add", adjoint_of_exit_waves, 1e-6),
    Check("adjointness of shift_ramp", adjoint_of_shift, 1e-6),
    Check("gradients against finite differences", finite_differences, 2e-3),
    Check("counts and chi^2 of a simulation, in standard deviations", counts, 4.0),
    Check("oracle: true patches make the true object", oracle, 3e-6),
    Check("a sweep of ePIE from the truth stays there", fixed_point, 1e-6),
    Check("bits on one, two and three threads, 0 equal", threads, 0.0),
)


def _problem() -> tuple[Tensor, Tensor, Tensor]:
    """An object, a probe of two modes and positions between pixels, none of them symmetric."""
    generator = torch.Generator().manual_seed(3)
    most = torch.tensor(SHAPE) - SIDE - 1
    positions = torch.rand(20, 2, generator=generator) * most
    return _complex(*SHAPE, seed=1), _complex(MODES, SIDE, SIDE, seed=2), positions


def _complex(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def _inner(a: Tensor, b: Tensor) -> float:
    """``Re <a, b>``, in float64."""
    return float((a.to(torch.complex128).conj() * b).real.sum())
