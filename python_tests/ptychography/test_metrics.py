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


def test_without_scikit_image_a_score_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    truth = images()["truth"]
    with pytest.raises(ImportError, match="scores need scikit-image .*: pip install scikit-image"):
        scores(truth, truth)
