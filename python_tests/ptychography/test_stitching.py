"""True patches give back the object; weights, middles and parts of pixels do what they say."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sem.ptycho import disk_probe, lines_object, raster_scan, spiral_scan, stitch, with_hermite_modes
from sem.ptycho.stitching import _largest_rectangle

TRUTH = lines_object(72, 40, seed=1)


def moved(patch, pixels):
    q = torch.fft.fftfreq(patch.shape[-1], dtype=torch.float64)
    ramp = torch.exp(-2j * math.pi * (q.unsqueeze(1) * pixels[0] + q * pixels[1]))
    return torch.fft.ifft2(torch.fft.fft2(patch.to(torch.complex128)) * ramp).to(torch.complex64)


def true_patches(positions, side):
    """Of TRUTH, in the probe's frame: by the part of a pixel less than where they lie."""
    corners = (positions + 0.5).floor()
    cut = (TRUTH[y : y + side, x : x + side] for y, x in corners.int().tolist())
    return torch.stack([moved(patch, -part) for patch, part in zip(cut, (positions - corners).double(), strict=True)])


@pytest.mark.parametrize("side", [24, 25])
@pytest.mark.parametrize("scan", ["raster", "parts of pixels", "spiral"])
@pytest.mark.parametrize("weights", ["one mode", "three modes", "keep 8", "keep 24"])
def test_true_patches_give_back_the_object(side, scan, weights):
    positions = spiral_scan(90, 2.2) if scan == "spiral" else raster_scan(9, 9, 5, seed=2)
    if scan == "parts of pixels":
        positions = positions + torch.rand(positions.shape, generator=torch.Generator().manual_seed(0))
    positions = positions.clamp(0, 72 - side)
    probe = with_hermite_modes(disk_probe(side), 3 if weights == "three modes" else 1)
    how = {"keep": int(weights.removeprefix("keep "))} if weights.startswith("keep") else {"probe": probe}
    found = stitch(true_patches(positions, side), positions, (72, 72), **how)
    error = (found.object - TRUTH).abs() * found.area(0.01)
    assert float(error.max()) < 1e-6 * float(TRUTH.abs().max())
    assert float(found.area().float().mean()) > 0.2 and bool((found.object[found.weight == 0] == 0).all())
    rows, columns = found.box()
    assert bool(found.area()[rows, columns].all()) and (rows.stop - rows.start) * (columns.stop - columns.start) > 900


def test_patches_that_differ_are_weighted_by_the_light():
    probe = disk_probe(16)
    light = probe[0].abs().square()
    patches = torch.ones(2, 16, 16, dtype=torch.complex64) * torch.tensor([1.0, 3j]).view(2, 1, 1)
    found = stitch(patches, torch.tensor([[0.0, 0.0], [0.0, 5.0]]), (16, 21), probe=7 * probe)
    weights = [torch.nn.functional.pad(light / light.max(), pad) for pad in ((0, 5), (5, 0))]
    torch.testing.assert_close(found.weight, sum(weights))
    torch.testing.assert_close(found.object, (weights[0] + 3j * weights[1]) / sum(weights))


def test_a_middle_is_taken_and_nothing_else():
    patches = torch.arange(81.0).view(1, 9, 9) + 0j
    found = stitch(patches, torch.tensor([[1.0, 2.0]]), (12, 12), keep=4)
    expected = torch.zeros(12, 12, dtype=torch.complex64)
    expected[3:7, 4:8] = patches[0, 2:6, 2:6]
    assert torch.equal(found.object, expected) and torch.equal(found.weight, (expected != 0).float())
    assert found.box() == (slice(3, 7), slice(4, 8))


def test_nearest_leaves_the_part_of_a_pixel_out():
    positions = torch.tensor([[1.4, 2.0]])
    patches = TRUTH[None, :16, :16]
    near = stitch(patches, positions, (24, 24), keep=16, subpixel="nearest")
    assert torch.equal(near.object[1:17, 2:18], patches[0])
    exact = stitch(patches, positions, (24, 24), keep=16)
    torch.testing.assert_close(exact.object[1:17, 2:18], moved(patches[0], (0.4, 0.0)), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_the_largest_rectangle_is(height, width, data):
    rows = data.draw(
        st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=height, max_size=height)
    )
    lit = torch.tensor(rows)
    best = max(
        (
            (b - a) * (d - c)
            for a, b in itertools.combinations(range(height + 1), 2)
            for c, d in itertools.combinations(range(width + 1), 2)
            if bool(lit[a:b, c:d].all())
        ),
        default=0,
    )
    found = lit[_largest_rectangle(rows)]
    assert found.numel() == best and bool(found.all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patches": torch.ones(2, 8, 8)}, r"patches: expected complex64 \[J, N, N\], got torch.float32 \[2, 8, 8\]"),
        ({"positions": torch.zeros(3, 2)}, r"positions: expected finite real \[2, 2\], got torch.float32 \[3, 2\]"),
        ({"positions": torch.full((2, 2), math.nan)}, r"positions: expected finite real \[2, 2\]"),
        ({"positions": torch.tensor([[0.0, 0.0], [9.0, 0.0]])}, r"patch of pattern 1 at \(9, 0\) leaves the object"),
        ({"probe": None}, "probe, keep: expected one of the two, got neither"),
        ({"keep": 3}, "probe, keep: expected one of the two, got both"),
        ({"probe": None, "keep": 9}, "keep: expected at most 8, the patches' side, got 9"),
        ({"probe": disk_probe(9)}, r"probe: expected complex64 \[M, 8, 8\], got torch.complex64 \[1, 9, 9\]"),
        ({"probe": torch.zeros(1, 8, 8) + 0j}, "probe: expected finite numbers that are not all 0"),
        ({"subpixel": "linear"}, "subpixel: expected one of"),
    ],
)
def test_mistakes_are_named(change, message):
    good = {"patches": torch.ones(2, 8, 8) + 0j, "positions": torch.zeros(2, 2), "shape": (12, 12)}
    with pytest.raises(ValueError, match=message):
        stitch(**(good | {"probe": disk_probe(8)} | change))
