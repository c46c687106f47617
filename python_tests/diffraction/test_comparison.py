import json

import numpy as np
import pytest
import torch

from sem.cli import main
from sem.diffraction import images
from sem.diffraction.comparison import compare, distinct_values, local_maxima, matches


def spots(*places, size=64, width=1.5):
    slow, fast = torch.meshgrid(torch.arange(size).double(), torch.arange(size).double(), indexing="ij")
    return sum(height * torch.exp(-((slow - s) ** 2 + (fast - f) ** 2) / width**2) for height, s, f in places)


def test_local_maxima_are_those_of_the_maximum_filter():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = torch.rand(40, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = {tuple(place) for place in local_maxima(image, 10_000).tolist()}
    array = image.numpy()
    expected = np.argwhere((array == ndimage.maximum_filter(array, size=3)) & (array > 0))
    assert found == {tuple(place) for place in expected.tolist()}
    highest = local_maxima(image, 5).tolist()
    assert [array[s, f] for s, f in highest] == sorted((array[s, f] for s, f in found), reverse=True)[:5]


def test_a_plateau_counts_every_pixel_of_its_top():
    image = torch.zeros(5, 5)
    image[2, 1:4] = 3.0
    assert local_maxima(image, 10).tolist() == [[2, 1], [2, 2], [2, 3]]


def test_matches_are_one_to_one():
    first = torch.tensor([[0, 0], [10, 10], [20, 20]])
    assert matches(first, first, 0.0) == 3
    assert matches(first, torch.tensor([[0, 1], [1, 0], [10, 12]]), 1.5) == 1
    assert matches(first, torch.tensor([[0, 1], [1, 0], [10, 12]]), 2.0) == 2
    assert matches(first, torch.empty(0, 2), 5.0) == 0


def test_figures_of_known_images():
    first = spots((10, 20, 20), (5, 40, 44))
    second = 1.5 * first
    result = compare(first, second, peaks=10)
    assert result.correlation == pytest.approx(1)
    assert result.sum_ratio == pytest.approx(1.5)
    assert result.maximum == pytest.approx((10, 15))
    assert result.rmse == pytest.approx(0.5 * first.square().mean().sqrt().item())
    assert result.relative_difference == pytest.approx(0.5)
    assert (result.peaks, result.matched) == ((2, 2), 2)
    moved = compare(first, spots((10, 20, 21), (5, 40, 44)))
    assert moved.matched == 1 and moved.correlation < 0.95
    assert compare(first, spots((10, 20, 21), (5, 40, 44)), radius=1.0).matched == 2


def test_distinct_values_of_the_middle():
    image = torch.arange(64 * 64).reshape(64, 64).double()
    assert distinct_values(image, 3) == 9
    assert distinct_values(torch.ones(4, 4)) == 1
    assert distinct_values(torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)) == 1


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (torch.zeros(3, 4), r"second image: expected shape \[3, 3\] as the first, got \[3, 4\]"),
        (torch.full((3, 3), float("nan")), "second image: expected finite pixels, got 9 that are not"),
        (torch.zeros(0, 3), "second image: expected pixels in two dimensions"),
    ],
)
def test_images_that_cannot_be_compared(second, complaint):
    with pytest.raises(ValueError, match=complaint):
        compare(torch.zeros(3, 3), second)


def test_the_command(tmp_path, capsys):
    images.write_float(tmp_path / "a.bin", spots((10, 20, 20)))
    images.write_float(tmp_path / "b.bin", spots((10, 20, 20), (1, 50, 50)))
    files = [str(tmp_path / name) for name in ("a.bin", "b.bin")]
    more = ["--json", str(tmp_path / "c.json"), "--plot", str(tmp_path / "c.png"), "--peaks", "7"]
    assert main(["diffraction", "compare", *files, *more]) == 0
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["peaks"] == [1, 2] and figures["matched"] == 1 and figures["images"] == files
    assert figures["correlation"] == pytest.approx(compare(*map(images.read_image, files)).correlation)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "correlation" in capsys.readouterr().out


def test_images_without_light_have_no_ratios(tmp_path, capsys):
    images.write_float(tmp_path / "a.bin", torch.zeros(4, 4))
    files = [str(tmp_path / "a.bin")] * 2
    assert main(["diffraction", "compare", *files, "--json", str(tmp_path / "c.json")]) == 0
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["correlation"] is None and figures["sum_ratio"] is None and figures["matched"] == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.bin", "none.bin"], "none.bin: cannot be read (No such file or directory)"),
        (["a.bin", "a.bin", "--peaks", "0"], "--peaks: expected a whole number >= 1, got 0"),
        (["a.bin", "a.bin", "--radius", "-1"], "--radius: expected a number of pixels >= 0, got -1"),
    ],
)
def test_wrong_use_is_a_sentence_and_status_2(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images.write_float("a.bin", torch.ones(4, 4))
    assert main(["diffraction", "compare", *arguments]) == 2
    assert capsys.readouterr().err == f"sem: {sentence}\n"


def test_pixels_that_are_bad_in_either_image_are_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = (1000 * spots((10, 20, 20), (5, 40, 44), (3, 12, 50))).round().int()
    second = 2 * first
    good, also = torch.ones(2, 64, 64, dtype=torch.bool)
    good[:, 30:33], also[5, 6], also[32, 31] = False, False, False
    expected = compare(first.where(good & also, 0), second.where(good & also, 0))
    hot = second.where(also, 900_000)  # bad pixels that would be the highest peaks and the largest difference
    images.write_field("a.cbf", [first], {}, [good])
    images.write_field("b.h5", [hot], {}, [also])
    assert main(["diffraction", "compare", "a.cbf", "b.h5", "--json", "c.json", "--plot", "c.png"]) == 0
    assert "bad pixels left out" in capsys.readouterr().out
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["left_out"] == 3 * 64 + 1
    for name in ("peaks", "matched", "largest_difference", "maximum", "sum_ratio"):
        assert figures[name] == json.loads(json.dumps(expected.to_mapping()))[name]
    assert figures["correlation"] == pytest.approx(1) and figures["matched"] == 3
    kept = first[good & also].double()
    assert figures["rmse"] == pytest.approx(kept.square().mean().sqrt().item())
    assert (tmp_path / "c.png").exists()


def test_bad_pixels_hide_neither_peaks_nor_numbers_that_are_none():
    image = spots((10, 20, 20))
    good = torch.ones(64, 64, dtype=torch.bool)
    good[20, 21], good[31, 31] = False, False
    spoilt = image.where(good, float("nan"))
    result = compare(image, spoilt, good=good)
    assert (result.peaks, result.matched, result.left_out, result.largest_difference) == ((1, 1), 1, 2, 0)
    assert result.plateau[0] == result.plateau[1]
    for wrong, complaint in (
        (~good & good, "images: expected pixels that are good in both, got none"),
        (good[1:], r"good: expected shape \[64, 64\] as the images, got \[63, 64\]"),
    ):
        with pytest.raises(ValueError, match=complaint):
            compare(image, image, good=wrong)
