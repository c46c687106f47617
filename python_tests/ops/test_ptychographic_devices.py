"""The ptychographic operators on a device: their kernels against the float64 twins, and against the CPU's."""

from __future__ import annotations

import pytest
import torch
from helpers import double, generator, relative_error
from ptychographic_problems import scan_of, waves
from scan_problems import same_bits

from sem.ops import (
    Patches,
    PatternStatus,
    exit_waves,
    far_residual,
    overlap_add,
    ptychographic_loss,
    reference,
    shift_ramp,
)
from sem.ops.far_residual import KINDS, LOSSES, far_residual_in_place

pytestmark = pytest.mark.own_backend


def gradients(call, leaves, cotangent, place=lambda value: value):
    leaves = [place(leaf.detach().clone()).requires_grad_() for leaf in leaves]
    out = call(*leaves)
    return [out.detach().cpu(), *(grad.cpu() for grad in torch.autograd.grad(out, leaves, place(cotangent)))]


def hold(values, exact, limits):
    for value, truth, limit in zip(values, exact, limits, strict=True):
        assert value.shape == truth.shape and relative_error(value, truth) <= limit


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize(
    ("patterns", "modes", "side", "shape"),
    [(1, 1, 1, (1, 1)), (3, 2, 7, (12, 11)), (25, 1, 33, (70, 101)), (6, 3, 16, (300, 600)), (1030, 1, 5, (20, 40))],
)
def test_exit_waves_and_their_gradients(patterns, modes, side, shape, own, place):
    corners = torch.stack(
        [torch.randint(0, length - side + 1, (patterns,), generator=generator(1)) for length in shape], 1
    )
    patches = Patches(corners, side, shape)
    leaves = [waves(*shape), waves(*([patterns] if own else []), modes, side, side, seed=2)]
    cotangent = waves(patterns, modes, side, side, seed=3)
    exact = gradients(lambda o, p: reference.exit_waves(o, p, patches), map(double, leaves), double(cotangent))
    found, again = (gradients(lambda o, p: exit_waves(o, p, patches), leaves, cotangent, place) for _ in range(2))
    hold(found, exact, (3e-7, 2e-6, 2e-6))
    assert all(map(same_bits, found, again))
    sums = overlap_add(*map(place, (cotangent, *leaves)), patches)
    assert all(same_bits(value.cpu(), grad) for value, grad in zip(sums[:2], found[1:], strict=True))
    here = overlap_add(cotangent, *leaves, patches)
    hold([value.cpu() for value in sums], [double(value) for value in here], (2e-6,) * 4)


@pytest.mark.parametrize(("patterns", "modes", "side"), [(1, 1, 2), (5, 2, 7), (9, 1, 64), (2, 2, 67)])
def test_shift_ramps_and_their_gradients(patterns, modes, side, place):
    leaves = [waves(modes, side, side), 3 * torch.randn(patterns, 2, generator=generator(1))]
    cotangent = waves(patterns, modes, side, side, seed=2)
    exact = gradients(reference.shift_ramp, map(double, leaves), double(cotangent))
    found, again = (gradients(shift_ramp, leaves, cotangent, place) for _ in range(2))
    hold(found, exact, (5e-7, 2e-6, 2e-6))
    assert all(map(same_bits, found, again))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [1, 15, 66])
def test_what_is_said_of_a_pattern_is_what_the_cpu_says(side, kind, place):
    far, data = waves(5, 2, side, side), torch.rand(5, side, side, generator=generator(1))
    weight = torch.rand(5, side, side, generator=generator(2))
    far[1, 1, -1, -1] = torch.nan
    data[2], weight[3] = 0, 0
    far[4, :, 0, 0], data[4, 0, 0] = 0, 1
    given = far, data, weight, 0 * data[0], kind, 2.5
    found = far_residual(*(place(value) if isinstance(value, torch.Tensor) else value for value in given))
    here, by_itself = (
        far_residual(*given),
        far_residual(*map(place, (far[:1], data[:1], weight[:1], given[3])), kind, 2.5),
    )
    assert found.status.tolist() == here.status.tolist()
    assert found.status.tolist()[:4] == [0, PatternStatus.NONFINITE, PatternStatus.DARK, PatternStatus.MASKED]
    for value, expected in zip(found, here, strict=True):
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert all(same_bits(a.cpu(), b[:1].cpu()) for a, b in zip(by_itself[:3], found[:3], strict=True))
    psi = place(torch.view_as_real(far).clone())
    reports = [torch.empty_like(report) for report in found[1:4]]
    far_residual_in_place(psi, *map(place, given[1:4]), KINDS.index(kind), reports, 2.5)
    torch.testing.assert_close(torch.view_as_complex(psi), found.out, rtol=0, atol=0, equal_nan=True)
    for report, expected in zip(reports, found[1:4], strict=True):
        torch.testing.assert_close(report, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("subpixel", ["fourier", "nearest"])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_and_gradients_agree_with_the_twin(kind, subpixel, place):
    *leaves, data, weight, background = scan_of(11, 2, 21, (60, 53))

    def total(loss):
        def of(object, probe, positions, background):
            found = loss(
                object,
                probe,
                positions,
                data.to(positions),
                weight=weight.to(positions),
                background=background,
                kind=kind,
                scale=3.0,
                subpixel=subpixel,
            )
            return found.total if isinstance(found, tuple) else found.sum()

        return of

    leaves = [*leaves, background]
    if subpixel == "nearest":  # where positions have no gradient in the twin
        one = torch.tensor(1.0)
        exact = gradients(
            lambda o, p, b: total(reference.ptychographic_loss)(o, p, double(leaves[2]), b),
            map(double, (*leaves[:2], background)),
            double(one),
        )
        found = gradients(
            lambda o, p, b: total(ptychographic_loss)(o, p, place(leaves[2]), b), (*leaves[:2], background), one, place
        )
        hold(found, exact, (2e-6, 1e-5, 1e-5, 1e-4))
        return
    exact = gradients(total(reference.ptychographic_loss), map(double, leaves), torch.tensor(1.0, dtype=torch.float64))
    hold(gradients(total(ptychographic_loss), leaves, torch.tensor(1.0), place), exact, (2e-6, 1e-5, 1e-5, 5e-5, 1e-4))


def test_a_losss_bits_do_not_depend_on_the_run(place):
    *leaves, data, weight, background = scan_of(40, 1, 16, (50, 60))

    def found():
        moved = [place(leaf.clone()).requires_grad_() for leaf in (*leaves, background)]
        loss = ptychographic_loss(*moved[:3], place(data), weight=place(weight), background=moved[3], block=7)
        return [*loss[:3], *torch.autograd.grad(loss.total, moved)]

    assert all(same_bits(a.cpu(), b.cpu()) for a, b in zip(found(), found(), strict=True))


def test_no_patterns(place):
    *leaves, data, weight, background = scan_of(0, 2, 9, (20, 20))
    moved = [place(leaf).requires_grad_() for leaf in (*leaves, background)]
    loss = ptychographic_loss(*moved[:3], place(data), weight=place(weight), background=moved[3])
    assert float(loss.total.detach()) == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss.total, moved))
    patches = Patches([], 9, (20, 20))
    nothing = place(torch.empty(0, 2, 9, 9, dtype=torch.complex64))
    for value in overlap_add(nothing, place(leaves[0].detach()), place(leaves[1].detach()), patches):
        assert not value.any()
    assert not far_residual(nothing, place(data)).to_background.any()
    assert shift_ramp(place(leaves[1].detach()), place(torch.empty(0, 2))).shape == (0, 2, 9, 9)
