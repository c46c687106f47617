"""Planted models: a constant, one fixed patch, the twin, a good one and a blurred one; and planted histories."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from sem.ptycho import (
    check_image,
    check_losses,
    check_patches,
    disk_probe,
    floors,
    judge,
    lines_object,
    raster_scan,
    scores,
    stitch,
)

TRUTH = lines_object(80, 50, seed=1)
POSITIONS = raster_scan(14, 14, 4)
CROP = 12


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def cut(image):
    return torch.stack([image[y : y + 24, x : x + 24] for y, x in POSITIONS.int().tolist()])


PLANTED = {
    "constant": lambda: torch.full((len(POSITIONS), 24, 24), 0.4 - 0.7j) + 1e-3 * noise(len(POSITIONS), 24, 24),
    "fixed patch": lambda: cut(TRUTH)[90].expand(len(POSITIONS), 24, 24) * (1 + 0.005 * noise(len(POSITIONS), 1, 1)),
    "twin": lambda: cut(TRUTH.flip(0, 1).conj()) + 0.05 * noise(len(POSITIONS), 24, 24),
    "good": lambda: cut(TRUTH) + 0.05 * noise(len(POSITIONS), 24, 24),
    "blurred": lambda: cut(torch.from_numpy(gaussian_filter(TRUTH.numpy(), 2))),
}
REASONS = {"constant": {"constant"}, "fixed patch": {"blind"}, "twin": {"twin"}, "good": set(), "blurred": set()}


@pytest.mark.parametrize("model", PLANTED)
@pytest.mark.parametrize("with_truth", [True, False])
def test_planted_models_are_told_apart(model, with_truth):
    patches = PLANTED[model]()
    image = stitch(patches, POSITIONS, TRUTH.shape, probe=disk_probe(24)).object
    verdict = judge(image=image, truth=TRUTH if with_truth else None, crop=CROP, patches=patches)
    expected = REASONS[model] - (set() if with_truth else {"twin"})
    # an image of one patch looks like a constant against a truth, and does so without one only where it is flat
    assert set(verdict.reasons) - ({"constant"} if model == "fixed patch" else set()) == expected
    assert verdict.collapsed == bool(expected)
    read = json.loads(verdict.to_json())
    assert read["collapsed"] == verdict.collapsed and set(read["reasons"]) == set(verdict.reasons)
    assert read["image"]["amp_rel_std"] == verdict.image.amp_rel_std
    assert str(verdict).startswith("collapsed: " if expected else "not collapsed; amplitudes vary by")


def test_an_image_near_the_floor_without_correlation_is_a_constant_although_it_varies():
    generator = torch.Generator().manual_seed(0)
    image = (1 + 0.022 * torch.randn(TRUTH.shape, generator=generator)) + 0j
    found = check_image(image, TRUTH, CROP)
    assert found.amp_rel_std > 0.02 and found.constant and abs(found.amp_ssim - found.amp_ssim_floor) < 0.02
    assert found.amp_ssim == scores(image, TRUTH, CROP).amp_ssim
    assert found.amp_ssim_floor == floors(TRUTH, CROP).amp_ssim
    assert not check_image(image).constant  # nobody can see it without the truth


def test_an_image_near_the_floor_that_follows_the_truth_is_not_a_constant():
    generator = torch.Generator().manual_seed(0)
    faint = 0.006 * (TRUTH.abs() - 1) / TRUTH.abs().std() + 0.0203 * torch.randn(TRUTH.shape, generator=generator)
    found = check_image(1 + faint + 0j, TRUTH, CROP)
    assert found.amp_rel_std > 0.02 and abs(found.amp_ssim - found.amp_ssim_floor) < 0.02
    assert found.amp_r > 0.1 and not found.constant


def test_an_object_of_phase_alone_is_judged_by_its_phase():
    truth = torch.polar(torch.ones(80, 80), TRUTH.angle())
    good = truth * (1 + 0.01 * noise(80, 80))
    found = check_image(good, truth, CROP)
    assert found.amp_rel_std < 0.02 and not found.constant and not found.twin
    assert check_image(torch.ones_like(truth), truth, CROP).constant


@pytest.mark.parametrize("shift", [(0, 0), (3, -2)])
def test_the_twin_is_found_wherever_it_lies(shift):
    twin = 1j * TRUTH.flip(0, 1).conj().roll(shift, (0, 1))
    found = check_image(twin, TRUTH, CROP)
    assert found.twin and found.twin_correlation > 0.9 and found.correlation < 0.7  # smooth images are all alike a bit
    assert not check_image(TRUTH.roll(shift, (0, 1)), TRUTH, CROP).twin
    assert not check_image(noise(80, 80), TRUTH, CROP).twin  # noise is neither


@pytest.mark.parametrize("side", [15, 16])
def test_patches_that_are_twins_are_found(side):
    """Under a symmetric probe a patch and its twin give one pattern: proved by the patterns, then told apart."""
    probe = disk_probe(side, defocus=0.0)[0]
    whole = torch.polar(TRUTH.abs(), 4 * TRUTH.angle())  # phases that its conjugate does not resemble
    true = torch.stack([whole[y : y + side, x : x + side] for y, x in POSITIONS[::7].int().tolist()])
    index = (2 * (side // 2) - torch.arange(side)) % side
    twins = true[:, index][:, :, index].conj()
    inside = probe.abs() > 1e-3 * probe.abs().max()
    patterns = [torch.fft.fft2(probe * inside * patches).abs() for patches in (true, twins)]
    torch.testing.assert_close(*patterns, rtol=1e-4, atol=1e-4 * float(patterns[0].max()))
    light = probe.abs().square()
    found = check_patches(twins * 1j + 0.05 * noise(*twins.shape), true, light)
    assert found.twin and not found.blind and found.twin_correlation > 0.9
    assert judge(patches=twins, true_patches=true, light=light).reasons == ("twin",)
    assert not check_patches(true + 0.05 * noise(*true.shape), true, light).twin
    assert not check_patches(noise(*true.shape), true, light).twin
    assert check_patches(true[:1].expand_as(true), true, light).blind


def test_light_says_which_pixels_count():
    true, light = noise(40, 16, 16), torch.zeros(16, 16)
    light[4:12, 4:12] = 1
    spoilt = noise(40, 16, 16, seed=1)
    spoilt[:, 4:12, 4:12] = true[:, 4:12, 4:12]
    assert check_patches(spoilt, true, light).correlation == pytest.approx(1)
    assert check_patches(spoilt, true).correlation < 0.5


def test_spread_is_the_share_between_patterns():
    fixed, own = noise(1, 8, 8), noise(200, 8, 8, seed=1)
    for share in (0.0, 0.02, 0.2, 1.0):
        found = check_patches(fixed + share * own)
        assert found.spread == pytest.approx(share / math.hypot(1, share), rel=0.15)
        assert found.blind == (share < 0.05)
    assert check_patches(torch.full((3, 8, 8), 2.0)).blind


def test_what_is_not_finite_is_said_and_saved():
    spoilt = TRUTH.clone()
    spoilt[40, 40] = math.nan
    patches = noise(3, 8, 8)
    patches[1, 0, 0] = math.inf
    verdict = judge(image=spoilt, truth=TRUTH, patches=patches, losses=[1.0, math.nan])
    assert verdict.reasons == ("nonfinite", "diverged") and json.loads(verdict.to_json())["losses"]["best"] == 1.0
    assert str(verdict).startswith("collapsed: nonfinite, diverged")


LEARNS = [1.0 - 0.6 * min(step / 100, 1) for step in range(300)]


def test_losses_that_learn_are_none_of_it():
    found = check_losses(LEARNS, best_constant=0.95)
    assert not found.flat and not found.diverged and found.spikes == ()
    assert found.best == found.last == pytest.approx(0.4)
    assert check_losses(LEARNS).flat is None  # nothing to compare with


def test_a_loss_that_stays_at_the_constant_s_is_flat_once_a_tenth_is_done():
    losses = [0.96 - 0.02 * (step % 2) for step in range(300)]
    assert check_losses(losses, best_constant=0.95).flat
    assert check_losses(losses[:10], best_constant=0.95, steps_planned=100).flat
    assert check_losses(losses[:9], best_constant=0.95, steps_planned=100).flat is None
    assert check_losses([0.98 * 0.95], best_constant=0.95).flat and not check_losses([0.92], best_constant=0.95).flat
    assert not check_losses([*losses, *[0.5] * 20], best_constant=0.95).flat


def test_divergence_is_a_loss_that_does_not_come_back():
    assert check_losses([*LEARNS, *[4.1] * 10]).diverged
    assert not check_losses([*LEARNS, *[3.9] * 10]).diverged  # not ten times the best
    assert not check_losses([*LEARNS, *[40.0] * 10, *[0.4] * 100]).diverged
    assert not check_losses([*LEARNS, 40.0]).diverged  # one batch of 301
    assert check_losses([0.5, 0.1, 1.1]).diverged  # one of three validations
    for broken in (math.nan, math.inf):
        found = check_losses([1.0, broken, 0.5])
        assert found.diverged and found.best == 0.5
    assert check_losses([math.nan]).best is None


def test_spikes_are_counted_where_they_begin():
    losses = [*LEARNS, *[2.0] * 3, *[0.4] * 50, 1.3, *[0.4] * 50]
    assert check_losses(losses).spikes == (300, 353)
    assert check_losses([*LEARNS, 1.1, *LEARNS[-20:]]).spikes == ()  # less than three times the median
    assert check_losses([*LEARNS, *[4.1] * 10]).spikes == ()  # no way back


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=80), st.floats(0.1, 100))
def test_losses_in_another_unit_say_the_same(losses, unit):
    unit = 2.0 ** round(math.log2(unit))  # exact
    first = check_losses(losses, best_constant=1.0)
    other = check_losses([unit * loss for loss in losses], best_constant=unit)
    assert (first.flat, first.diverged, first.spikes) == (other.flat, other.diverged, other.spikes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_losses([]), "losses: expected at least one, got none"),
        (
            lambda: check_patches(noise(1, 8, 8)),
            r"patches: expected \[J, N, N\] of 2 patterns or more, got \[1, 8, 8\]",
        ),
        (lambda: check_patches(noise(3, 8, 8), noise(2, 8, 8)), r"truth: expected shape \[3, 8, 8\], got \[2, 8, 8\]"),
        (
            lambda: check_image(noise(8, 8), crop=4),
            r"image: expected \[H, W\], larger than its crop of 4, got \[8, 8\]",
        ),
        (lambda: check_image(noise(80, 81), TRUTH), r"expected one shape \[H, W\], got \[80, 81\] and \[80, 80\]"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
