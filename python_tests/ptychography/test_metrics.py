"""Scores against stored ones (scikit-image's similarity, alignment by the formulas), and what they must not see."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sem.ptycho import aligned, floors, scores

GOLDEN = Path(__file__).parent / "golden"
METRICS = json.loads((GOLDEN / "metrics.json").read_text(encoding="utf-8"))["metrics"]


def images():
    with np.load(GOLDEN / "metrics.npz") as file:
        return {key.removeprefix("image_"): torch.from_numpy(file[key]) for key in file}


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_the_stored_ones(name):
    found = images()
    values = scores(found[name], found["truth"])
    for key in ("amp_ssim", "amp_mae", "phase_ssim", "complex_error"):
        assert getattr(values, key) == pytest.approx(METRICS[name][key], abs=1e-4), key


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
    with pytest.raises(ImportError, match=r"scores need scikit-image: pip install 'sem\[ptycho\]'"):
        scores(images()["truth"], images()["truth"])


def test_what_torch_optimises_can_be_scored():
    truth = images()["truth"]
    assert scores(truth.clone().requires_grad_(), truth) == pytest.approx(scores(truth, truth))


@pytest.mark.parametrize(
    ("spoil", "crop", "message"),
    [
        (lambda image: image * math.nan, 0, "reconstruction: expected finite numbers"),
        (lambda image: image[1:], 0, r"expected one shape \[H, W\], got \[95, 96\] and \[96, 96\]"),
        (lambda image: image, 45, r"crop: expected to leave 7 x 7 pixels or more of \[96, 96\], got 45"),
    ],
)
def test_mistakes_are_named(spoil, crop, message):
    truth = images()["truth"]
    with pytest.raises(ValueError, match=message):
        scores(spoil(truth), truth, crop)
