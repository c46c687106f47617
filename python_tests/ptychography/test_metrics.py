"""Scores against stored ones (scikit-image's similarity, alignment by the formulas), and what they must not see."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sem.ptycho import Scores, aligned, compare, floors, lines_object, registered, ring_correlation, scores

GOLDEN = Path(__file__).parent / "golden"
METRICS = json.loads((GOLDEN / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def images():
    with np.load(GOLDEN / "metrics.npz") as file:
        return {key.removeprefix("image_"): torch.from_numpy(file[key]) for key in file}


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_the_stored_ones(name):
    found = images()
    values = scores(found[name], found["truth"])
    for key in set(Scores._fields) - {"psnr"}:
        assert getattr(values, key) == pytest.approx(METRICS[name][key], abs=1e-6), key


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kind", ["complex", "amplitude"])
def test_ring_correlations_are_the_stored_ones(name, kind):
    found = images()
    image, truth = aligned(found[name], found["truth"]), found["truth"].to(torch.complex128)
    if kind == "amplitude":
        image, truth = image.abs(), truth.abs()
    rings, stored = ring_correlation(image, truth), METRICS[name][f"frc_{kind}"]
    assert len(rings.curve) == len(stored["curve"]) == 49 and rings.side == 96
    if (name, kind) == ("constant", "amplitude"):  # stored: the correlation of a constant's rounding errors
        assert not rings.curve.any() and rings.half == rings.seventh == rings.half_bit == 1
        return
    assert rings.curve.tolist() == pytest.approx(stored["curve"], abs=1e-6)
    for key in ("half", "seventh", "half_bit"):
        assert getattr(rings, key) == pytest.approx(stored[key], abs=1e-4), key


@pytest.mark.parametrize("shape", [(33, 33), (40, 57)])
def test_ring_correlation_takes_the_square_in_the_middle(shape):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, dtype=torch.complex64, generator=generator)
    other = image + torch.randn(shape, dtype=torch.complex64, generator=generator)
    side, (top, left) = min(shape), ((size - min(shape)) // 2 for size in shape)
    square = (slice(top, top + side), slice(left, left + side))
    found = ring_correlation(image, other)
    torch.testing.assert_close(found.curve, ring_correlation(image[square], other[square]).curve)
    assert len(found.curve) == side // 2 + 1 and found.curve[1:].mean().item() == pytest.approx(math.sqrt(0.5), abs=0.1)
    assert found.resolution(2.0) == pytest.approx(2 * side / found.half_bit)


def test_psnr_has_the_truth_s_range():
    truth = images()["truth"]
    wanted = truth.abs().double()
    noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0)).double()
    off = 0.01 * float(wanted.max() - wanted.min()) * (noise - noise.mean()) / noise.std(correction=0)
    image = torch.polar(wanted + off, truth.angle().double())
    assert scores(image, truth).psnr == pytest.approx(40, abs=0.01)
    assert scores(truth, truth).psnr > 100


def test_blurred_floors_are_the_stored_blurs():
    truth = images()["truth"]
    for blur in (1, 2):
        stored = METRICS[f"blur_{blur}"]
        assert floors(truth, blur=blur).amp_ssim == pytest.approx(stored["amp_ssim"], abs=1e-5)
        assert floors(truth, blur=blur).phase_ssim == pytest.approx(stored["phase_ssim"], abs=1e-5)


def test_a_comparison_prints_and_becomes_json():
    truth = images()["truth"]
    found = compare(images()["noise"], truth, 8)
    again = scores(images()["noise"], truth, 8), floors(truth, 8)
    for one, other in zip((found.reconstruction, found.constant), again, strict=True):
        assert one._asdict() == pytest.approx(other._asdict(), rel=1e-9)
    assert all(key in str(found) for key in Scores._fields)
    flat = compare(truth.abs() + 0j, truth.abs() + 0j, 8)
    assert "none" in str(flat) and flat.reconstruction.phase_mae is None
    read = json.loads(json.dumps(flat.as_dict(), allow_nan=False))
    assert read["blurred_2_px"]["amp_ssim"] == flat.blurred_2_px.amp_ssim


def shifted(image, pixels):
    """By a Fourier ramp over the whole image, of which an inner part is then taken: no edge comes into it."""
    q = [torch.fft.fftfreq(size, dtype=torch.float64) for size in image.shape]
    ramp = torch.exp(-2j * math.pi * (q[0].unsqueeze(1) * pixels[0] + q[1] * pixels[1]))
    return torch.fft.ifft2(torch.fft.fft2(image.to(torch.complex128)) * ramp)


@pytest.mark.parametrize("pixels", [(0.0, 0.0), (0.3, -0.44), (1.7, 2.26), (-5.3, 8.12)])
def test_registration_finds_a_fiftieth_of_a_pixel(pixels):
    whole, part = lines_object(160, 80, seed=1), slice(36, 124)
    truth = whole[part, part]
    y, x = torch.meshgrid(torch.arange(88.0), torch.arange(88.0), indexing="ij")
    moved = (1.3 - 0.4j) * shifted(whole, pixels)[part, part] * torch.polar(torch.ones_like(y), 0.02 * y - 0.05 * x)
    found, back = registered(moved, truth, crop=12)
    assert max(abs(a + b) for a, b in zip(back, pixels, strict=True)) <= 0.02 + 1e-9
    assert scores(found, truth, 12).complex_error < 0.006
    assert scores(moved, truth, 12, register=True) == pytest.approx(scores(found, truth, 12), abs=1e-9)
    if any(pixels):
        assert scores(moved, truth, 12).complex_error > 0.01


def test_a_phase_that_only_rounding_makes_is_none():
    truth = images()["truth"].abs() * torch.tensor(0.7 + 0.3j)
    angle = truth.to(torch.complex128).angle()
    assert truth.dtype == torch.complex64 and 1e-9 < float(angle.max() - angle.min()) < 1e-6
    found = scores(truth, truth)
    assert found.phase_ssim is found.phase_mae is found.phase_r is found.phase_ssim_range_two_pi is None


def test_a_constant_is_the_floor_whatever_it_is():
    truth = images()["truth"]
    for constant in (1.0, 3j, 0.01):
        assert scores(torch.full_like(truth, constant), truth) == pytest.approx(floors(truth), abs=1e-6)


def test_a_factor_and_a_ramp_are_not_seen():
    truth = images()["truth"]
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    turned = 0.3j * truth * torch.polar(torch.ones_like(y), 0.37 * y - 1.1 * x)
    torch.testing.assert_close(aligned(turned, truth), truth.to(torch.complex128), rtol=1e-4, atol=1e-5)
    assert scores(turned, truth).complex_error < 1e-5


def test_an_object_without_phase_has_no_phase_to_score():
    truth = images()["truth"].abs().to(torch.complex64)
    assert scores(truth, truth).phase_ssim is None and math.isclose(scores(truth, truth).amp_ssim, 1)


def test_an_object_without_contrast_has_no_amplitudes_to_compare():
    truth = torch.polar(torch.ones(96, 96), images()["truth"].angle().float())
    found = scores(truth, truth)
    assert found.amp_ssim is None and found.phase_ssim == pytest.approx(1) and found.complex_error < 1e-6


def test_without_scikit_image_scores_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(ImportError, match=r"scores need scikit-image: pip install 'sem-torch\[ptycho\]'"):
        scores(images()["truth"], images()["truth"])


def test_what_torch_optimises_can_be_scored():
    truth = images()["truth"]
    assert scores(truth.clone().requires_grad_(), truth) == pytest.approx(scores(truth, truth))


@pytest.mark.parametrize(
    ("spoil", "crop", "message"),
    [
        (lambda image: image * math.nan, 0, "reconstruction: expected finite numbers"),
        (lambda image: image[1:], 0, r"expected one shape \[H, W\], got \[95, 96\] and \[96, 96\]"),
        (lambda image: image, -1, r"crop: expected to leave 7 x 7 pixels or more of \[96, 96\], got -1"),
        (lambda image: image, 45, r"crop: expected to leave 7 x 7 pixels or more of \[96, 96\], got 45"),
    ],
)
def test_mistakes_are_named(spoil, crop, message):
    truth = images()["truth"]
    with pytest.raises(ValueError, match=message):
        scores(spoil(truth), truth, crop)


def test_ring_correlation_names_its_mistakes():
    with pytest.raises(ValueError, match=r"expected one shape \[H, W\] of 8 pixels or more, got \[8, 8\] and \[8, 9\]"):
        ring_correlation(torch.ones(8, 8), torch.ones(8, 9))
    with pytest.raises(ValueError, match="other: expected finite numbers"):
        ring_correlation(torch.ones(8, 8), torch.full((8, 8), math.inf))


def test_a_truth_of_zeros_is_refused():
    with pytest.raises(ValueError, match="truth: expected numbers that are not all 0"):
        scores(images()["truth"], torch.zeros(96, 96, dtype=torch.complex64))
