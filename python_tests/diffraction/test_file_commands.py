"""``sem diffraction inspect`` and ``convert`` from the command line to the file."""

import h5py
import numpy as np
import pytest
import torch

from sem.cli import main
from sem.diffraction import Beam, Crystal, Detector, Reflections, experiment_of, images, write_experiments
from sem.diffraction.inspection import convert, inspect

ROWS = "1 2 3 7.25\n2 0 0 5\n0 0 4 1e2\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "a.hkl").write_text(ROWS)
    return tmp_path


def run(*words):
    return main(["diffraction", *words])


def test_rows_to_mtz_to_rows(folder, capsys):
    assert run("convert", "a.hkl", "a.mtz", "--cell", "30", "40", "50", "90", "90", "90") == 0
    assert run("convert", "a.mtz", "b.hkl") == 0
    printed = capsys.readouterr().out
    assert (
        "wrote a.mtz: 3 reflections in P1" in printed and "wrote b.hkl: 6 reflections in P1, from column F" in printed
    )
    rows = {tuple(map(float, line.split())) for line in (folder / "b.hkl").read_text().splitlines()}
    given = {tuple(map(float, line.split())) for line in ROWS.splitlines()}
    assert rows == given | {(-h, -k, -m, value) for h, k, m, value in given}
    assert run("convert", "b.hkl", "c.mtz", "--cell", "30", "40", "50", "90", "90", "90", "--space-group", "P 1") == 0
    one, other = Reflections.read("a.mtz"), Reflections.read("c.mtz")
    assert one.first == other.first and torch.equal(one.table, other.table)


def test_inspect_says_what_a_file_of_reflections_holds(capsys):
    convert("a.hkl", "a.mtz", cell=(30, 40, 50, 90, 95, 90))
    assert run("inspect", "a.mtz") == 0
    printed = capsys.readouterr().out
    for text in ("MTZ", "P 1", "30 40 50 90 95 90", "F, amplitude", "F: 6 reflections in P1", "h -2 to 2", "5 to 100"):
        assert text in printed
    assert dict(inspect("a.hkl")) == {
        "format": "rows h k l F",
        "reflections": "3",
        "indices": "h 0 to 2, k 0 to 2, l 0 to 4",
        "amplitudes": "5 to 100",
    }


def test_inspect_says_what_experiments_hold(capsys):
    detectors = [Detector((20, 10), 0.1, 80.0, beam_center=(x, 0.5)) for x in (0.5, 3.5)]
    made = experiment_of(Crystal((30, 40, 50, 90, 90, 90), phi=3, oscillation=0.5), Beam(1.25), detectors)
    write_experiments("a.expt", [made, made])
    assert run("inspect", "a.expt") == 0
    printed = capsys.readouterr().out
    for text in (
        "dxtbx experiments",
        "0: wavelength",
        "1.25",
        "20 x 10 of 0.1 mm, plane at 80 mm",
        "images 1 to 1 from 3 by 0.5 degrees",
        "30 40 50 90 90 90",
        "1: space group (Hall)",
    ):
        assert text in printed


def test_inspect_says_what_an_image_holds(capsys):
    counts = torch.arange(12, dtype=torch.int32).view(3, 4)
    settings = {"pixel": 0.1, "distance": 80.0, "spot": (0.2, 0.15)}
    images.write_field("a.h5", [counts, 2 * counts], settings)
    with h5py.File("a.h5", "a") as file:
        file["entry/instrument/detector/pixel_mask"] = np.eye(3, 4, dtype=np.uint32)
    assert run("inspect", "a.h5") == 0
    printed = capsys.readouterr().out
    for text in ("HDF5", "4 x 3 int32, 1 to 11, 3 not good", "4 x 3 int32, 2 to 22, 3 not good", "0.2 0.15", "80"):
        assert text in printed


@pytest.mark.parametrize("name", ["b.cbf", "b.edf", "b.tif", "b.h5", "b.img"])
def test_an_image_to_another_format(name, capsys):
    counts = torch.arange(12, dtype=torch.int32).view(3, 4)
    images.write_field("a.h5", [counts, 2 * counts], {"pixel": 0.1, "distance": 80.0})
    assert run("convert", "a.h5", name, "--panel", "1") == 0
    assert f"wrote {name}: 1 panel of 3 x 4" in capsys.readouterr().out
    assert torch.equal(images.read_image(name), 2 * counts.double())
    if name in ("b.cbf", "b.edf", "b.h5"):
        assert images.read_panels(name).settings == pytest.approx({"pixel": 0.1, "distance": 80.0})


def test_all_panels_go_where_there_is_room_for_them():
    images.write_field("a.h5", [torch.rand(3, 4), torch.rand(3, 4)])
    assert convert("a.h5", "b.nxs") == "2 panels of 3 x 4"
    one, other = images.read_panels("a.h5"), images.read_panels("b.nxs")
    assert all(np.array_equal(a, b) for a, b in zip(one.panels, other.panels, strict=True))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("convert a.hkl a.mtz", "a.mtz: expected a cell, which a.hkl does not have"),
        ("convert a.hkl a.cbf", "a.cbf: expected a name that ends in .mtz, .hkl, .txt for reflections"),
        ("convert a.hkl a.foo", "a.foo: expected a name that ends in .mtz, .hkl, .txt for reflections"),
        (
            "convert raw.bin a.foo",
            "a.foo: expected a name that ends in .cbf, .edf, .tif, .tiff, .h5, .hdf5, .nxs, .img",
        ),
        ("convert raw.bin a.cbf", "raw.bin: expected a square image of 4-byte floats, got 12 bytes"),
        ("convert a.h5 b.hkl", "b.hkl: expected a name that ends in .cbf"),
        ("convert a.mtz a.cbf", "a.cbf: expected a name that ends in .mtz, .hkl, .txt for reflections"),
        ("convert a.mtz b.mtz --cell 1 2 3 90 90 90", "a.mtz: expected no cell, which the file has itself"),
        ("convert a.mtz b.mtz --space-group nonsense", "b.mtz: expected a space group by its symbol, got 'nonsense'"),
        ("convert a.mtz b.hkl --space-group P1", "b.hkl: expected no space group, which MTZ alone is given, got 'P1'"),
        ("convert a.h5 b.h5 --space-group P1", "b.h5: expected no space group, which MTZ alone is given, got 'P1'"),
        ("convert a.hkl b.hkl --column F", "a.hkl: expected MTZ or CIF to go with column 'F', got another file"),
        ("convert far.hkl b.hkl", "far.hkl: expected whole indices of at most 32768, got 1 -9e+09 2"),
        ("convert a.mtz b.mtz --column FP", "a.mtz: expected a column of amplitudes or intensities that is one of F"),
        ("convert a.h5 b.cbf", "a.h5: expected a panel from 0 to 1 to be chosen, got none"),
        ("convert a.h5 b.cbf --panel 0", "b.cbf: expected another format than CBF"),
        ("convert a.h5 b.img --panel 0", "b.img: expected whole counts, which SMV holds, got others"),
        ("convert a.h5 b.h5 --frame 4", "a.h5: expected an exposure from 0 to 0, got 4"),
        ("convert a.h5 b.jpg --panel 0", "b.jpg: expected a name that ends in .cbf"),
        ("convert a.expt b.h5", "a.expt: expected reflections or an image, got dxtbx experiments"),
        ("inspect none.mtz", "none.mtz: cannot be read (No such file or directory)"),
        ("inspect .", ".: cannot be read (Is a directory)"),
        ("inspect /dev/zero", "/dev/zero: expected a file, got a device"),
    ],
)
def test_what_cannot_be_is_a_sentence(words, complaint, folder, capsys):
    convert("a.hkl", "a.mtz", cell=(30, 40, 50, 90, 90, 90))
    images.write_field("a.h5", [torch.rand(3, 4), torch.rand(3, 4)])
    write_experiments("a.expt", [experiment_of(Crystal((30, 40, 50, 90, 90, 90)), Beam(), [Detector((8, 8))])])
    (folder / "raw.bin").write_bytes(np.ones(3, np.float32).tobytes())
    (folder / "far.hkl").write_text("1 -9e9 2 5\n0 0 1 5\n")
    before = sorted(path.name for path in folder.iterdir())
    assert run(*words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sem: {complaint}") and error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("name", ["b.h5", "b.cbf", "b.edf", "b.tif"])
def test_counts_that_32_bits_do_not_hold_are_refused(name, dtype, folder, capsys):
    large = 3_000_000_000 if dtype is np.int64 else 2**64 - 1
    np.save("a.npy", np.array([[0, large], [2, 3]], dtype))
    assert run("convert", "a.npy", name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sem: {name}: expected counts from -2147483648 to 2147483647, which fit in 32 bits, got 0")
    assert error.count("\n") == 1 and not (folder / name).exists()
    np.save("a.npy", np.array([[0, 2**31 - 1], [2, 3]], dtype))
    assert run("convert", "a.npy", name) == 0
    assert images.read_image(name).tolist() == [[0, 2**31 - 1], [2, 3]]


def with_bad_pixels():
    """Counts of two panels, which pixels are good, and the same in a file whose bad pixels hold counts."""
    counts = torch.arange(1, 25, dtype=torch.int32).view(2, 3, 4)
    good = torch.ones(2, 3, 4, dtype=torch.bool)
    good[0, 1], good[1, 2, 3], good[1, 0, 0] = False, False, False
    images.write_field("a.h5", list(counts), {"pixel": 0.1}, list(good))
    with h5py.File("a.h5") as file:
        assert file["entry/instrument/detector/pixel_mask"][()].tolist() == (~good).int().tolist()
    return counts, good


def test_bad_pixels_from_hdf5_to_cbf_and_back(capsys):
    counts, good = with_bad_pixels()
    assert convert("a.h5", "b.nxs") == "2 panels of 3 x 4, bad pixels: 6"
    assert np.array_equal(images.read_panels("b.nxs").good, good)
    assert np.array_equal(images.read_panels("b.nxs").panels, counts)
    assert run("convert", "a.h5", "b.cbf", "--panel", "1") == 0
    assert "wrote b.cbf: 1 panel of 3 x 4, bad pixels: 2" in capsys.readouterr().out
    assert convert("b.cbf", "c.h5") == "1 panel of 3 x 4, bad pixels: 2"
    for name in ("b.cbf", "c.h5"):
        found = images.read_panels(name)
        assert np.array_equal(found.good[0], good[1])
        assert np.array_equal(found.panels[0], torch.where(good[1], counts[1], -1))


def test_gaps_and_bad_pixels_of_cbf_to_hdf5_and_back():
    counts = torch.arange(1, 13, dtype=torch.int32).view(3, 4)
    counts[1], counts[0, 2] = -1, -2
    images.write_field("a.cbf", [counts])
    assert convert("a.cbf", "b.h5") == "1 panel of 3 x 4, bad pixels: 5"
    assert np.array_equal(images.read_panels("b.h5").good[0], counts > 0)
    convert("b.h5", "c.cbf")
    assert np.array_equal(images.read_panels("c.cbf").panels[0], counts)


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [("b.edf", -1, "below 0"), ("b.tif", -1, "below 0"), ("b.img", 0, "as 0"), ("b.bin", -1, "below 0")],
)
def test_formats_that_mark_no_bad_pixels_say_what_became_of_them(name, written, said):
    counts = torch.arange(1, 17, dtype=torch.int32).view(4, 4)
    good = counts != 6
    images.write_field("a.h5", [counts], {}, [good])
    suffix = name[1:]
    assert convert("a.h5", name) == f"1 panel of 4 x 4, bad pixels: 1, which {suffix} does not mark, written {said}"
    assert torch.equal(images.read_image(name), torch.where(good, counts, written).double())


@pytest.mark.parametrize("name", ["b.h5", "b.cbf", "b.tif", "b.img"])
def test_the_largest_number_that_beamlines_mark_bad_pixels_with_is_no_count(name):
    with h5py.File("a.h5", "w") as file:
        file["entry/data/data"] = np.array([[[5, 2**32 - 1], [7, 8]]], np.uint32)
        file["entry/instrument/detector/pixel_mask"] = np.array([[0, 1], [0, 0]], np.uint32)
    convert("a.h5", name)
    assert images.read_image(name).tolist() == [[5, 0 if name == "b.img" else -1], [7, 8]]
    if name in ("b.h5", "b.cbf"):
        assert images.read_panels(name).good[0].tolist() == [[True, False], [True, True]]


def test_a_mask_of_another_shape_is_refused(folder):
    with pytest.raises(ValueError, match=r"good: expected the shapes of the 1 panels, got \[2, 3\]"):
        images.write_field("b.h5", [torch.ones(3, 4)], {}, [torch.ones(2, 3, dtype=torch.bool)])
    assert not (folder / "b.h5").exists()


@pytest.mark.parametrize("dtype", [">u2", "u1", "u4", ">i4", "u8", "?"])
def test_whole_numbers_of_every_kind_are_counts(dtype):
    counts = np.array([[0, 1], [1, 100]]).astype(dtype)
    np.save("a.npy", counts)
    convert("a.npy", "b.h5")
    found = images.read_panels("b.h5").panels[0]
    assert found.dtype == np.int32 and np.array_equal(found, counts)
    images.write_field("c.cbf", [torch.tensor([[5, 255]], dtype=torch.uint8)], {}, [torch.tensor([[True, False]])])
    assert images.read_image("c.cbf").tolist() == [[5, -1]]


def test_reflections_of_amplitude_0_are_kept(folder):
    (folder / "z.hkl").write_text("2 0 0 5\n1 2 3 7.25\n0 0 4 0\n1 2 3 0\n-1 0 0 0.0\n")
    assert convert("z.hkl", "y.hkl") == "4 reflections in P1, from column F"
    rows = [list(map(float, line.split())) for line in (folder / "y.hkl").read_text().splitlines()]
    assert rows == [[-1, 0, 0, 0], [0, 0, 4, 0], [1, 2, 3, 0], [2, 0, 0, 5]]  # of one given twice the last counts
    found = dict(inspect("z.hkl"))
    assert found["reflections"] == "4" and found["amplitudes"] == "0 to 5" and found["indices"].startswith("h -1 to 2")
    convert("z.hkl", "z.mtz", cell=(30, 40, 50, 90, 90, 90))
    convert("z.mtz", "x.hkl")
    assert (folder / "x.hkl").read_text().count(" 0.0\n") == 6 and Reflections.read("z.mtz", 9.0).table.eq(0).sum() == 6


def test_rows_that_are_all_0_are_reflections(folder):
    (folder / "z.hkl").write_text("2 0 0 0\n")
    assert dict(inspect("z.hkl"))["reflections"] == "1"
