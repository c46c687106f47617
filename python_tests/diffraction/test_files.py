"""Readers and writers: what goes in comes out, what is wrong is said in a sentence."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sem.diffraction import Crystal, Reflections, SourceRow, experiment_from, images
from sem.diffraction.readers import read_matrix, read_sources
from sem.diffraction.smv_header import smv_header


@pytest.fixture
def file(tmp_path):
    def write(text, name="input.txt"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def test_an_orientation_matrix_from_the_command_line():
    path = Path(__file__).parent / "golden" / "mat.txt"
    crystal = experiment_from(f"-mat {path} -lambda 2 -default_F 1 -N 3".split()).simulator.crystal
    columns = torch.from_numpy(np.loadtxt(path)) / 2
    real, stars = crystal.vectors()
    torch.testing.assert_close(stars.detach(), columns.T)
    torch.testing.assert_close((real @ columns).detach(), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["a.hkl", "a.hkl.gz"])
def test_hkl(file, name):
    made = Reflections.read(file("# a comment\n-1 0 2 3.5\n\n1 1 2 4e1 0.2\n1 1 2 41\n", name), default=7)
    assert (made.first, made.last) == ((-1, 0, 2), (1, 1, 2))
    assert made.table.tolist() == [[[3.5], [7]], [[7], [7]], [[7], [41]]]


def test_matrix_has_the_reciprocal_vectors_as_columns(file):
    path = file("0.02 0 0.001\n0 0.03 0\n0 0 0.04\n 1 2 3\nSYMM P1\n")
    rows = read_matrix(path, wavelength=2.0)
    assert rows.tolist() == [[0.01, 0, 0], [0, 0.015, 0], [0.0005, 0, 0.02]]
    assert Crystal(reciprocal=rows).vectors()[0][1].tolist() == pytest.approx([0, 1 / 0.015, 0])


@pytest.mark.parametrize("text", ["1 0 0 0\n2 0 0 0 4", "1 0 0 0 2 0 0 0 4 5 6\nSYMM", "1\n0\n0\n0 2\n\n0 0 0 4\n"])
def test_a_matrix_may_have_other_rows(file, text):
    assert read_matrix(file(text), wavelength=1.0).tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 4]]


@pytest.mark.parametrize(
    "row", ["-0.2, 0, 0.001, 3, 1.02e-10", "-0.2;0;0.001; 3 :1.02e-10", "-0.2,0,0.001,3,1.02e-10,"]
)
def test_sources_with_other_separators(file, row):
    assert read_sources(file(f"{row}\n")) == (SourceRow((-0.2, 0, 0.001), 3, pytest.approx(1.02)),)


def test_sources(file):
    path = file("-0.2 0 0\n-0.2 0 0.001 3\n-0.2 0 0 0.5 1.02e-10\n")
    assert read_sources(path) == (
        SourceRow((-0.2, 0, 0)),
        SourceRow((-0.2, 0, 0.001), 3),
        SourceRow((-0.2, 0, 0), 0.5, pytest.approx(1.02)),
    )


@pytest.mark.parametrize(
    ("read", "text", "complaint"),
    [
        (Reflections.read, "", "expected rows of numbers, h k l F, got none"),
        (Reflections.read, "# nothing\n", "expected rows of numbers, h k l F, got none"),
        (Reflections.read, "1 2 3 4\n1 2 3\n", "line 2: expected 4 or more finite numbers, h k l F, got '1 2 3'"),
        (Reflections.read, "1 2 3 nan\n", "line 1: expected 4 or more finite numbers"),
        (Reflections.read, "1 2 x 4\n", "line 1: expected 4 or more finite numbers, h k l F, got '1 2 x 4'"),
        (Reflections.read, "1 2 0.5 4\n", "expected whole numbers h k l in each row, got 1 2 0.5 4"),
        (Reflections.read, "0 0 0 1\n99999 99999 9999 1\n", "expected indices that span at most"),
        (
            lambda path: read_matrix(path, 1.0),
            "1 0 0\n0 1 0\n",
            "expected nine numbers, a*, b* and c* along each axis, got 6",
        ),
        (lambda path: read_matrix(path, 1.0), "1 0 0\n0 x 0\n", "line 2: expected 1 or more finite numbers"),
        (read_sources, "", "expected rows of numbers, x y z weight wavelength, got none"),
        (read_sources, "1 2\n", "line 1: expected 3 or more finite numbers, x y z weight wavelength, got '1 2'"),
    ],
)
def test_a_file_that_is_wrong(file, read, text, complaint):
    path = file(text)
    with pytest.raises(ValueError) as error:
        read(path)
    assert str(error.value).startswith(str(path)) and complaint in str(error.value)


@pytest.mark.parametrize(
    "read", [Reflections.read, read_sources, images.read_image, images.read_smv, images.read_pgm, images.read_float]
)
def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read \(No such file or directory\)"):
        read(tmp_path / "none.txt")


def test_bytes_that_are_no_text_and_no_gzip(tmp_path):
    (tmp_path / "a.hkl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected a text file, got other bytes"):
        Reflections.read(tmp_path / "a.hkl")
    (tmp_path / "a.hkl.gz").write_bytes(b"1 2 3 4\n")
    with pytest.raises(ValueError, match="cannot be read"):
        Reflections.read(tmp_path / "a.hkl.gz")


def test_float_image(tmp_path):
    image = torch.rand(6, 4)
    images.write_float(tmp_path / "a.bin", image)
    assert torch.equal(images.read_float(tmp_path / "a.bin", (6, 4)), image)
    with pytest.raises(ValueError, match="expected a square image of 4-byte floats, got 96 bytes"):
        images.read_float(tmp_path / "a.bin")


def test_counts():
    values = torch.tensor([[0.0, 0.25], [10.0, -200.0]])
    counts, scale = images.counts(values)
    assert scale == 5500
    assert counts.tolist() == [[40, 1415], [55040, 0]]
    assert images.counts(torch.tensor([[0.4, 0.6, 1.5]]), 1.0)[0].tolist() == [[40, 41, 42]]
    inside = torch.tensor([[False, True], [True, False]])
    assert images.counts(values, computed=inside)[0].tolist() == [[0, 1415], [55040, 0]]
    assert images.counts(torch.zeros(2, 2))[0].tolist() == [[40, 40], [40, 40]]
    assert images.counts(values, scale=1e6, offset=0)[0].tolist() == [[0, 65535], [65535, 0]]


def test_smv(tmp_path):
    counts = torch.randint(0, 65536, (5, 7), dtype=torch.int32)
    path = tmp_path / "a.img"
    images.write_smv(path, counts, {"DISTANCE": "100"})
    raw = path.read_bytes()
    assert len(raw) == 512 + 2 * 35
    assert raw.startswith(b"{\nHEADER_BYTES=512;\nDIM=2;\n") and b"}\f" in raw[:512]
    assert np.frombuffer(raw[512:], "<u2").tolist() == counts.flatten().tolist()
    again, header = images.read_smv(path)
    assert torch.equal(again, counts)
    assert (header["SIZE1"], header["SIZE2"], header["DISTANCE"]) == ("7", "5", "100")


def test_smv_of_the_other_byte_order(tmp_path):
    header = b"{\nHEADER_BYTES=512;\nBYTE_ORDER=big_endian;\nTYPE=unsigned_short;\nSIZE1=2;\nSIZE2=1;\n}\f".ljust(512)
    (tmp_path / "a.img").write_bytes(header + struct.pack(">HH", 1, 513))
    assert images.read_smv(tmp_path / "a.img")[0].tolist() == [[1, 513]]


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"no header", "expected an SMV image that begins with a header"),
        (b"{SIZE1=2;}\f", "expected whole numbers HEADER_BYTES, SIZE1 and SIZE2"),
        (b"{HEADER_BYTES=40;SIZE1=2;SIZE2=x;}\f", "expected whole numbers HEADER_BYTES, SIZE1 and SIZE2"),
        (b"{HEADER_BYTES=60;SIZE1=2;SIZE2=3;TYPE=float;}\f", "expected TYPE=unsigned_short, got float"),
        (b"{HEADER_BYTES=40;SIZE1=2;SIZE2=3;}\f".ljust(50), "expected 2 x 3 pixels of 2 bytes, got 10 bytes"),
    ],
)
def test_an_smv_image_that_is_wrong(tmp_path, raw, complaint):
    (tmp_path / "a.img").write_bytes(raw)
    with pytest.raises(ValueError, match=complaint):
        images.read_smv(tmp_path / "a.img")


def test_counts_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected counts from 0 to 65535, got 0 to 65536"):
        images.write_smv(tmp_path / "a.img", torch.tensor([[0, 65536]]))
    assert not list(tmp_path.iterdir())


def test_pgm(tmp_path):
    image = torch.tensor([[0.0, 1.0, 2.5], [300.0, -1.0, 7.9]])
    images.write_pgm(tmp_path / "a.pgm", image, scale=2.0)
    assert (tmp_path / "a.pgm").read_bytes().startswith(b"P5\n3 2\n# pixels scaled by 2\n255\n")
    assert images.read_pgm(tmp_path / "a.pgm").tolist() == [[0, 2, 5], [255, 0, 15]]
    images.write_pgm(tmp_path / "a.pgm", image, inside=torch.tensor([[True, True, False], [False, True, False]]))
    assert images.read_pgm(tmp_path / "a.pgm").tolist() == [[0, 50, 125], [255, 0, 255]]  # of 0, 1, -1, over n - 1
    images.write_pgm(tmp_path / "a.pgm", image)
    (tmp_path / "a.pgm").write_bytes(b"P5\n3 2\n255\n12345")
    with pytest.raises(ValueError, match="expected a binary PGM image"):
        images.read_pgm(tmp_path / "a.pgm")


def test_any_image_is_recognised(tmp_path):
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    images.write_float(tmp_path / "float", image)
    images.write_smv(tmp_path / "smv", image.int())
    images.write_pgm(tmp_path / "pgm", image, 1.0)
    np.save(tmp_path / "array.npy", image.numpy())
    for name in ("float", "smv", "pgm", "array.npy"):
        assert images.read_image(tmp_path / name).tolist() == image.tolist()


def test_noise_has_the_mean_and_variance_of_its_image_and_repeats():
    image = torch.full((200, 200), 30.0)
    photons = images.poisson(image, seed=4).double()
    assert photons.mean().item() == pytest.approx(30, abs=0.15)
    assert photons.var().item() == pytest.approx(30, rel=0.04)
    assert torch.equal(images.poisson(image, seed=4), photons.long())
    assert not torch.equal(images.poisson(image, seed=5), photons.long())
    odd = torch.tensor([[float("nan"), -3.0, 0.0]])
    assert images.poisson(odd, seed=1).tolist() == [[0, 0, 0]]


def test_the_header_describes_the_experiment_so_that_reading_it_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    crystal = "-cell 70 80 90 75 85 95 -default_F 100 -N 5"
    flags = "-detpixels_f 40 -detpixels_s 30 -pixel 0.2 -distance 80 -lambda 1.3 -Xbeam 3 -Ybeam 4.5 -phi 2 -osc 1"
    first = experiment_from(f"{crystal} {flags}".split()).simulator
    images.write_smv("a.img", torch.zeros(30, 40, dtype=torch.int32), smv_header(first))
    second = experiment_from(f"{crystal} -img a.img".split()).simulator
    assert torch.equal(second(reference=True), first(reference=True))
    _, header = images.read_smv("a.img")
    # the same spot as every program counts it, worked out by hand for fast 4.6 and slow 3.1 mm
    expected = {
        "DENZO_X_BEAM": 3.1,
        "DENZO_Y_BEAM": 4.6,
        "MOSFLM_CENTER_X": 3.0,
        "MOSFLM_CENTER_Y": 4.5,
        "ADXV_CENTER_X": 4.6,
        "ADXV_CENTER_Y": 2.9,
        "XDS_ORGX": 23.5,
        "XDS_ORGY": 16.0,
        "CLOSE_DISTANCE": 80,
    }
    assert {name: float(header[name]) for name in expected} == pytest.approx(expected)


def test_an_smv_header_takes_the_room_it_needs(tmp_path):
    image = torch.arange(6).view(2, 3)
    entries = {f"ENTRY_{k}": f"{k / 7:.15f}" for k in range(40)}
    images.write_smv(tmp_path / "a.img", image, entries)
    found, header = images.read_smv(tmp_path / "a.img")
    assert torch.equal(found, image.int()) and header["HEADER_BYTES"] == "1536"
    assert (tmp_path / "a.img").stat().st_size == 1536 + 12
    assert {name: header[name] for name in entries} == entries


@pytest.mark.parametrize("value", ["a;b", "a=b", "é", "a}"])
def test_an_smv_entry_that_would_break_the_header_is_refused(value):
    with pytest.raises(ValueError, match="SMV header: expected ASCII without any of"):
        images.smv_header_bytes((2, 3), {"NAME": value})


def test_hostile_images_and_tables_are_one_line(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5" + b"\n" * 5_000_000)
    with pytest.raises(ValueError, match="expected a binary PGM image"):
        images.read_image(tmp_path / "a.pgm")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="a.npy: expected an array of numpy's"):
        images.read_image(tmp_path / "a.npy")
    (tmp_path / "a.hkl").write_text("0 0 0 1\n1000 1000 1000 2\n")
    with pytest.raises(ValueError, match="expected indices that span at most 16777216 reflections"):
        Reflections.read(tmp_path / "a.hkl")
