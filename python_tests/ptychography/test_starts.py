"""A result as the beginning of a reconstruction: where its object comes to lie, what is taken, what is refused."""

import dataclasses
import re

import h5py
import pytest
import torch

from sem.cli import main
from sem.ptycho import (
    PIE,
    Geometry,
    Recipe,
    ResultFile,
    Run,
    Scan,
    ScanFile,
    disk_probe,
    far_intensity,
    raster_scan,
    read_result,
    simulate,
    write_result,
    write_scan,
)
from sem.ptycho.starts import begin_from

SIDE = 16
GEOMETRY = Geometry(1.5, 2.0, 75e-6, SIDE)


def smooth(height, width, pixel=1.0, shift=(0.0, 0.0)):
    """An object that can be computed at any point: pixels of ``pixel``, of which ``[0, 0]`` is at ``shift``."""
    y = (torch.arange(height).double() * pixel + shift[0]).unsqueeze(1)
    x = torch.arange(width).double() * pixel + shift[1]
    amplitude = 1 + 0.2 * (0.21 * y + 0.1).sin() * (0.17 * x).cos()
    return torch.polar(amplitude, 0.5 * (0.13 * y - 0.19 * x).cos()).to(torch.complex64)


@pytest.fixture(scope="module")
def made():
    """A scan between pixels of a smooth object, its probe in counts, and the object."""
    truth = smooth(40, 43)
    positions = raster_scan(6, 7, 3, jitter=0) + 0.3
    scan, probe = simulate(truth, disk_probe(SIDE, 4.0, defocus=4.0), positions, photons=1e6, seed=3)
    return ScanFile(scan, probe, truth, GEOMETRY)


def result_of(made, **changed):
    positions = made.scan.positions
    own = dict(object=made.object, probe=made.probe, positions=positions, start=positions, geometry=made.geometry)
    return ResultFile("truth", **(own | changed))


def up_to_phase(found, wanted):
    return found * torch.polar(torch.ones(()), (found.conj() * wanted).sum().angle())


def misfit(start, probe):
    scan = start.scan
    model = far_intensity(start.object, probe, scan.positions).sqrt()
    return float((model - scan.amplitudes).norm() / scan.amplitudes.norm())


def test_on_the_same_pixels_nothing_changes_but_one_phase(made):
    turned = made.object * torch.polar(torch.ones(()), torch.tensor(2.0))
    start = begin_from(result_of(made, object=turned), made.scan, GEOMETRY)
    height, width = made.scan.object_shape()
    assert start.object.shape == (height, width) and start.note == "object: of truth, moved by (0, 0) pixels"
    rows, columns = slice(2, 31), slice(2, 34)  # where patches are
    torch.testing.assert_close(start.object[rows, columns].abs(), turned[rows, columns].abs())
    inside = up_to_phase(start.object[rows, columns], made.object[rows, columns])
    torch.testing.assert_close(inside, made.object[rows, columns], rtol=1e-4, atol=1e-5)
    mean = start.object[rows, columns].mean()
    assert abs(float(mean.angle())) < 0.1  # as an object of ones has
    assert misfit(start, made.probe) < 0.02 and start.probe is made.probe and start.scan is made.scan


def test_a_margin_between_pixels_moves_the_object_between_them(made):
    """Positions begin at 8 instead of 0.3."""
    start = begin_from(result_of(made), made.scan.with_margin(), GEOMETRY)
    assert "interpolated, moved by (7.70, 7.70) pixels" in start.note
    assert misfit(start, made.probe) < 0.02
    wanted = smooth(52, 55, shift=(-7.7, -7.7))
    rows, columns = slice(12, 36), slice(12, 38)
    found = up_to_phase(start.object[rows, columns], wanted[rows, columns])
    assert float((found - wanted[rows, columns]).abs().max()) < 5e-3
    off = begin_from(result_of(made, object=made.object.roll(1, 0)), made.scan.with_margin(), GEOMETRY)
    assert misfit(off, made.probe) > 2 * misfit(start, made.probe)  # what a pixel beside it costs


@pytest.mark.parametrize(("side", "factor"), [(32, 0.5), (16, 1.6)])
def test_pixels_of_another_size_are_interpolated(made, side, factor):
    """The same positions in metres; a result's pixel is so many of the scan's."""
    other = dataclasses.replace(GEOMETRY, side=side, distance=GEOMETRY.distance * factor * side / SIDE)
    middles = made.scan.positions + SIDE // 2
    there = (middles / factor - side // 2).float()
    there = there - there.amin(0) + 3
    origin = (middles[0] - factor * (there[0] + side // 2)).tolist()  # of its pixel [0, 0], in the scan's
    height, width = (int(most) + side + 3 for most in there.amax(0).tolist())
    object = smooth(height, width, factor, origin)
    given = result_of(made, object=object, probe=disk_probe(side, 6.0), positions=there, start=there, geometry=other)
    start = begin_from(given, made.scan, GEOMETRY)
    assert f"whose pixels are {factor} times as large" in start.note and start.probe is None
    inside = (slice(8, 24), slice(8, 26))
    found = up_to_phase(start.object[inside], made.object[inside])
    assert float((found - made.object[inside]).abs().max()) < 0.02
    with pytest.raises(ValueError, match="no geometry in both files|pattern . .* pixels elsewhere"):
        begin_from(dataclasses.replace(given, geometry=None), made.scan, GEOMETRY)


def test_where_no_patch_lies_the_object_is_even(made):
    """A network's is 0 there, and an engine's whatever it was."""
    strange = made.object.clone()
    strange[33:], strange[:, 35:] = 50, 0  # patches end at row 31 and column 34
    start = begin_from(result_of(made, object=strange), made.scan)
    level = start.object[-1, -1]
    assert torch.equal(start.object[33:], level.expand_as(start.object[33:]))
    assert torch.equal(start.object[:, 35:], level.expand_as(start.object[:, 35:]))
    assert float(level.real) == pytest.approx(1.0, abs=0.1) and float(level.imag) == 0
    torch.testing.assert_close(start.object[:31, :34].abs(), made.object[:31, :34].abs())


def test_positions_that_were_refined_are_taken_over(made):
    steps = 0.4 * torch.rand(made.scan.positions.shape, generator=torch.Generator().manual_seed(0)) - 0.2
    wrong = ScanFile(made.scan.at(made.scan.positions + steps), made.probe, None, GEOMETRY)
    given = result_of(made, start=wrong.scan.positions)
    start = begin_from(given, wrong.scan, GEOMETRY)
    torch.testing.assert_close(start.scan.positions, made.scan.positions)
    assert misfit(start, made.probe) < 0.02


def test_a_run_begins_there_and_scales_to_the_counts(made, tmp_path):
    path = tmp_path / "result.h5"
    write_result(path, result_of(made, object=3 * made.object, probe=made.probe / 7))
    flat, kept = (Run(made, Recipe(engine="epie", sweeps=1, **more)) for more in ({}, {"keep_probe": True}))
    begun = Run(made, Recipe(engine="epie", sweeps=1, start=str(path)))
    both = Run(made, Recipe(engine="epie", sweeps=1, start=str(path), keep_probe=True))
    assert "probe: the result's, scaled by 2.33" in begun.notes[1] and "object: scaled by 0.333" in both.notes[2]
    assert torch.equal(both.result().probe, made.probe) and torch.equal(kept.result().probe, made.probe)
    assert len(begun.result().object) == len(flat.result().object)
    for run in (flat, begun, both):
        run.run()
    assert begun.sweeps[0].chi_squared < 0.02 * flat.sweeps[0].chi_squared
    assert both.sweeps[0].chi_squared < 0.02 * flat.sweeps[0].chi_squared
    assert "the file's" in Run(made, Recipe(start=str(path), probe="file")).notes[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.__delitem__("object"), "object"),
        (lambda file: file["object"].__setitem__((3, 3), float("nan")), "object: expected finite numbers"),
        (lambda file: file["object"].__setitem__(..., 0), "object: expected some light behind it, got none"),
        (lambda file: file["start"].__setitem__(5, 1), "got pattern 5 .* pixels elsewhere"),
        (lambda file: file["positions"].__setitem__(5, 90), "of pattern 5 at .* leaves the object"),
    ],
)
def test_a_result_that_does_not_fit_is_refused_in_a_sentence(made, tmp_path, capsys, change, words):
    scan, path = tmp_path / "scan.h5", tmp_path / "result.h5"
    write_scan(scan, made)
    write_result(path, result_of(made))
    with h5py.File(path, "r+") as file:
        change(file)
    assert main(["ptycho", "reconstruct", str(scan), "--output", str(tmp_path / "out"), "--start", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said
    assert re.search(words, said), said
    assert not (tmp_path / "out").exists()


def test_results_of_other_scans_are_refused(made, tmp_path):
    other = made.scan.positions[:-1]
    with pytest.raises(ValueError, match="positions: expected 42, as the scan has, got 41"):
        begin_from(result_of(made, positions=other, start=other), made.scan)
    with pytest.raises(ValueError, match=r"probe: expected \[M, 16, 16\], as the patterns are, got side 8"):
        begin_from(result_of(made, probe=disk_probe(8), geometry=None), made.scan, GEOMETRY)
    with pytest.raises(ValueError, match="reconstruction.probe = 'start': expected reconstruction.start"):
        Recipe(probe="start")
    path = tmp_path / "scan.h5"
    write_scan(path, made)
    with pytest.raises(ValueError, match="expected a result of sem ptycho reconstruct"):
        Run(made, Recipe(start=str(path)))


def test_an_engines_result_goes_on_as_the_engine_would(made, tmp_path):
    scan = Scan(made.scan.amplitudes, made.scan.positions.round())
    whole = ScanFile(scan, made.probe)
    first = Run(whole, Recipe(engine="epie", sweeps=4, probe_from=None, chi_squared=None))
    first.run()
    write_result(tmp_path / "result.h5", first.result())
    again = Run(whole, Recipe(engine="epie", sweeps=2, start=str(tmp_path / "result.h5"), probe_from=None))
    begun = PIE(scan, first.result().probe, read_result(tmp_path / "result.h5").object, probe_from=None)
    again.run()
    expected = begun.run(2).reports
    assert [sweep.loss for sweep in again.sweeps] == pytest.approx([report.loss for report in expected], rel=0.02)
