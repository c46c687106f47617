"""Files of results: back as they were written, damaged ones in a sentence; what is shown and compared."""

from dataclasses import replace

import h5py
import pytest
import torch
from scan_files import put, same_bits

from sem.ptycho import Geometry, Recipe, ResultFile, Run, Simulation, is_result, read_result, write_result
from sem.ptycho.comparison import beside, scores_beside, shown


def some(**changed):
    generator = torch.Generator().manual_seed(0)

    def wave(*shape):
        return torch.randn(*shape, dtype=torch.complex64, generator=generator)

    start = 8 + 12 * torch.rand(20, 2, generator=generator)
    values = dict(
        name="epie:2",
        object=wave(40, 42),
        probe=wave(2, 15, 15),
        positions=start + 0.25,
        start=start,
        origin=(8, 8),
        losses={"sweep": [0.0, 1.0], "loss": [3.5, float("nan")]},
        geometry=Geometry(1.5, 2.0, 75e-6, 15),
        settings={"stages": [{"engine": "epie"}], "seed": 3},
        source="scan µ.h5",
    )
    return ResultFile(**{**values, **changed})


def test_a_result_comes_back_bit_for_bit(tmp_path):
    path, result = tmp_path / "result.h5", some()
    write_result(path, result)
    assert is_result(path)
    found = read_result(path)
    for name in ("object", "probe", "positions", "start"):
        assert same_bits(getattr(found, name), getattr(result, name))
    for name in ("name", "origin", "geometry", "settings", "source"):
        assert getattr(found, name) == getattr(result, name)
    assert found.losses["sweep"] == [0.0, 1.0] and found.losses["loss"][0] == 3.5
    bare = some(geometry=None, losses={}, settings={}, source="")
    write_result(path, bare)
    assert read_result(path).geometry is None and read_result(path).losses == {}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("object", None, "object"),
        ("object", [[1.0, 2.0]], "object: expected complex64 of 2 dimensions"),
        ("probe", "text", "expected numbers"),
        ("positions", [[1.0, 2.0]], "positions: expected float32"),
        ("origin", [1, 2, 3], "origin: expected two whole numbers"),
        ("settings", "{", "settings: expected JSON"),
        ("settings", "[1]", "settings: expected a JSON object, got list"),
        ("losses/loss", [1.0], "losses: expected numbers of the same sweeps"),
        ("losses/loss", [[1.0]], "losses/loss: expected real"),
        ("geometry/distance", -1.0, "distance: expected a finite number > 0"),
    ],
)
def test_a_damaged_result_gets_a_sentence(name, value, words, tmp_path):
    path = tmp_path / "result.h5"
    write_result(path, some())
    with h5py.File(path, "r+") as file:
        put(file, name, value)
    with pytest.raises(ValueError, match=words) as error:
        read_result(path)
    assert str(error.value).startswith(str(path))


def test_what_is_no_result(tmp_path):
    path = tmp_path / "result.h5"
    path.write_bytes(b"text")
    assert not is_result(path)
    with pytest.raises(ValueError, match="expected a result of sem ptycho reconstruct, got another file"):
        read_result(path)
    write_result(path, some())
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 9
    with pytest.raises(ValueError, match="expected version 1"):
        read_result(path)
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path / "nowhere.h5")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (dict(object=torch.zeros(3, 3)), "object: expected complex64"),
        (dict(probe=torch.zeros(1, 3, 4, dtype=torch.complex64)), "probe: expected"),
        (dict(start=torch.zeros(3, 2)), "start: expected float32"),
        (dict(object=torch.full((3, 3), float("nan") + 0j)), "object: expected finite"),
        (dict(geometry=Geometry(1.5, 2.0, 75e-6, 16)), "geometry: expected side 15"),
    ],
)
def test_a_result_that_cannot_be(changed, words):
    with pytest.raises(ValueError, match=words):
        some(**changed)


@pytest.fixture(scope="module")
def known():
    made = Simulation(side=16, rows=7, columns=6, step=3, lines=20, radius=4, photons=1e8).make()
    run = Run(made, Recipe(engine="epie", sweeps=8, positions=7, keep_probe=True, chi_squared=None))
    run.run()
    return made, run.result()


def test_the_truth_lies_under_the_object_whatever_the_margin(known):
    made, result = known
    assert result.origin == (8, 8)
    found, wanted = beside(result, made.object)
    assert found.shape == wanted.shape and min(found.shape) >= 14
    placed = torch.nn.functional.pad(made.object, (8, 8, 8, 8))
    assert torch.equal(beside(replace(result, object=placed), made.object)[0], wanted)
    scores, floors = scores_beside(result, made.object)
    assert scores.amp_ssim > 0.95 > floors.amp_ssim and scores.complex_error < 0.1
    with pytest.raises(ValueError, match="truth: expected 7 pixels or more"):
        beside(result, made.object[:12])


def test_what_is_shown_is_lit_and_has_no_ramp(known):
    made, result = known
    height, width = result.object.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ramp = torch.polar(torch.ones(height, width), 0.7 * y - 1.1 * x + 2)
    flat, back = shown(result), shown(replace(result, object=result.object * ramp))
    torch.testing.assert_close(back, flat, rtol=1e-3, atol=1e-3)
    assert flat.shape[0] < height and flat.shape[1] < width
    assert float(flat.angle().std()) < 1.5
