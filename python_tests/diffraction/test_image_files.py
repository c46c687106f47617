"""Images and masks as CBF, EDF, TIFF and HDF5: what goes in comes out, what is wrong is said in a sentence."""

import ast
import contextlib
import os
import struct
import time
import tracemalloc
from pathlib import Path

import fabio
import h5py
import numpy as np
import pytest
import torch

from sem.cli import main
from sem.diffraction import experiment_from, images
from sem.diffraction.conventions import CONVENTIONS, custom
from sem.diffraction.files.nexus import read_nexus
from sem.diffraction.images import read_image, read_panels, write_field
from sem.diffraction.smv_header import image_settings

SETTINGS = {
    "pixel": 0.172,
    "distance": 190.5,
    "wavelength": 0.979,
    "spot": (4.125, 3.25),
    "phi": 1.5,
    "oscillation": 0.25,
}
SPOT = "-cell 100 100 100 90 90 90 -default_F 100 -lambda 6.2 -N 5"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def counts(slow=7, fast=11, seed=0):
    draw = np.random.default_rng(seed)
    steps = draw.choice([1, 100, 300, 40000, 10**6], size=(slow, fast))  # byte offsets of every length
    return torch.from_numpy((draw.integers(0, 5, (slow, fast)) * steps).astype(np.int32))


@pytest.mark.parametrize("name", ["a.cbf", "a.edf", "a.tif", "a.TIFF", "a.h5", "a.nxs"])
def test_counts_and_what_the_header_says_come_back(name):
    image = counts()
    write_field(name, [image], SETTINGS)
    found = read_panels(name)
    assert found.panels[0].dtype == np.int32 and torch.equal(torch.from_numpy(found.panels[0]), image)
    known = {"t": [], "e": ["pixel", "distance", "wavelength", "spot"]}.get(name[2].lower(), list(SETTINGS))
    assert found.settings == pytest.approx({key: pytest.approx(SETTINGS[key]) for key in known})
    assert list(os.listdir()) == [name]


@pytest.mark.parametrize("name", ["a.edf", "a.tif", "a.h5"])
def test_floats_come_back_to_the_bit(name):
    image = torch.rand(5, 9) * 1e4
    write_field(name, [image])
    assert torch.equal(read_image(name).float(), image)


def test_fabio_reads_what_is_written_and_we_read_what_fabio_writes():
    image = counts()
    for name in ("a.cbf", "a.edf", "a.tif"):
        write_field(name, [image], SETTINGS)
        assert np.array_equal(fabio.open(name).data, image)
    for dtype in ("int32", "uint16", "int64", "uint32"):
        fabio.cbfimage.CbfImage(data=image.numpy().clip(0, 60000).astype(dtype)).write("b.cbf")
        found = read_panels("b.cbf").panels[0]
        assert found.dtype == np.dtype(dtype) and np.array_equal(found, image.numpy().clip(0, 60000))


def test_a_cbf_of_a_beamline(folder):
    """The header of a Pilatus, gaps of -1 and bad pixels of -2."""
    image = counts()
    image[2], image[0, 3] = -1, -2
    header = {
        "_array_data.header_convention": "PILATUS_1.2",
        "_array_data.header_contents": "# Detector: PILATUS3 6M\n# Pixel_size 172e-6 m x 172e-6 m\n"
        "# Silicon sensor, thickness 0.001000 m\n# Wavelength 0.97950 A\n# Detector_distance 0.25000 m\n"
        "# Beam_xy (5.50, 3.25) pixels\n# Start_angle 30.0000 deg.\n# Angle_increment 0.1000 deg.",
    }
    fabio.cbfimage.CbfImage(data=image.numpy(), header=header).write("a.cbf")
    found = read_panels("a.cbf")
    assert np.array_equal(found.good[0], image.numpy() >= 0)
    simulator = experiment_from([*SPOT.replace("-lambda 6.2", "").split(), "-img", "a.cbf", "-mask", "a.cbf"]).simulator
    detector = simulator.detector
    assert float(simulator.beam.wavelength) == 0.9795 and float(detector.distance) == pytest.approx(250)
    assert (detector.fast_pixels, detector.slow_pixels, detector.pixel_size) == (11, 7, pytest.approx(0.172))
    assert (float(simulator.crystal.phi), float(simulator.crystal.oscillation)) == (30, pytest.approx(0.1))
    assert torch.equal(simulator.mask, image > 0)


@pytest.mark.parametrize("name", [*CONVENTIONS, "CUSTOM"])
def test_the_spot_of_a_header_is_where_the_beam_arrives_in_every_convention(name):
    write_field("a.h5", [counts(12, 11)], SETTINGS | {"spot": (0.9, 1.3)})
    flag = ["-odet_vector", "1", "0", "0"] if name == "CUSTOM" else [f"-{name.lower()}"]
    simulator = experiment_from([*SPOT.split(), "-img", "a.h5", *flag]).simulator
    assert image_settings(simulator)["spot"] == pytest.approx((0.9, 1.3))
    assert image_settings(simulator)["distance"] == pytest.approx(190.5)
    convention = CONVENTIONS.get(name) or custom()
    center = convention.center_of((0.9, 1.3), 0.2, 5.0)
    assert convention.fast_slow(torch.tensor(center), 0.2, 5.0).tolist() == pytest.approx([0.9, 1.3])


def test_simulated_images_in_every_format_are_those_of_the_c_programs(folder):
    flags = [*SPOT.split(), "-detpixels_f", "24", "-detpixels_s", "20", "-distance", "90", "-twotheta", "4"]
    written = ["-floatfile", "f.h5", "-intfile", "i.cbf", "-noisefile", "n.tif", "-nopgm"]
    plain = ["-floatfile", "f.bin", "-intfile", "i.img", "-noisefile", "n.img", "-nopgm"]
    assert main(["diffraction", "simulate", *flags, *written]) == 0
    assert main(["diffraction", "simulate", *flags, *plain]) == 0
    assert torch.equal(read_image("f.h5").float(), images.read_float("f.bin", (20, 24)))
    for one, other in (("i.cbf", "i.img"), ("n.tif", "n.img")):
        assert torch.equal(read_image(one), read_image(other)) and read_image(one).max() > 200
    again = experiment_from([*SPOT.split(), "-img", "f.h5"]).simulator.detector
    assert float(again.distance) == pytest.approx(float(experiment_from(flags).simulator.detector.distance))
    assert main(["diffraction", "compare", "i.cbf", "i.img"]) == 0


def test_an_output_that_its_format_cannot_hold_is_refused_before_the_work(folder, capsys):
    assert main(["diffraction", "simulate", *SPOT.split(), "-detpixels", "16", "-floatfile", "f.cbf"]) == 2
    assert "f.cbf: expected another format than CBF, which holds whole counts" in capsys.readouterr().err
    assert not list(folder.iterdir())
    with pytest.raises(ValueError, match=r"a\.tif: expected one panel, which TIFF holds, got 2"):
        write_field("a.tif", [counts(), counts()])
    with pytest.raises(ValueError, match=r"a\.txt: expected a name that ends in \.cbf"):
        write_field("a.txt", [counts()])


# --- several panels, masks, exposures -------------------------------------------------------------------------------


def test_several_panels_in_one_nexus_file(folder):
    panels = [counts(seed=seed) for seed in range(3)]
    write_field("a.h5", panels, SETTINGS)
    found = read_panels("a.h5")
    assert [np.array_equal(one, other) for one, other in zip(found.panels, panels, strict=True)] == [True] * 3
    assert torch.equal(read_image("a.h5", 2), panels[2].double())
    for panel, got in ((None, "to be chosen, got none"), (3, "got 3"), (-1, "got -1")):
        with pytest.raises(ValueError, match=f"a.h5: expected a panel from 0 to 2.*{got}"):
            read_image("a.h5", panel)


def nexus(path, data, mask=None, modules=(), **more):
    """A file as a beamline writes it, by h5py alone."""
    with h5py.File(path, "w") as file:
        for name, kind in (
            ("entry", "NXentry"),
            ("entry/data", "NXdata"),
            ("entry/instrument", "NXinstrument"),
            ("entry/instrument/eiger", "NXdetector"),
            ("entry/instrument/beam", "NXbeam"),
        ):
            file.create_group(name).attrs["NX_class"] = kind
        if data is not None:
            file.create_dataset("entry/data/data", data=data, **more)
        detector = file["entry/instrument/eiger"]
        if mask is not None:
            detector["pixel_mask"] = mask
        detector["distance"], detector["x_pixel_size"] = 120.0, 75.0
        detector["distance"].attrs["units"], detector["x_pixel_size"].attrs["units"] = "mm", "um"
        file["entry/instrument/beam/incident_wavelength"] = 0.1
        file["entry/instrument/beam/incident_wavelength"].attrs["units"] = "nm"
        for number, (origin, size) in enumerate(modules):
            module = detector.create_group(f"module_{number}")
            module.attrs["NX_class"] = np.bytes_("NXdetector_module")
            module["data_origin"], module["data_size"] = origin, size
    return path


def test_a_nexus_file_of_a_beamline():
    data = np.arange(3 * 6 * 8, dtype=np.uint32).reshape(3, 6, 8)
    mask = np.zeros((6, 8), np.uint32)
    mask[1, 2], mask[5, 7] = 1, 1 << 30
    nexus("a.h5", data, mask, chunks=(1, 6, 8), compression="gzip")
    found = read_nexus("a.h5", frame=1)
    assert found.frames == 3 and np.array_equal(found.panels[0], data[1])
    assert np.array_equal(found.good[0], mask == 0)
    assert found.settings == pytest.approx({"pixel": 0.075, "distance": 120, "wavelength": 1})
    simulator = experiment_from([*SPOT.split(), "-mask", "a.h5"]).simulator
    assert np.array_equal(simulator.mask, mask == 0)
    with pytest.raises(ValueError, match=r"a\.h5: expected an exposure from 0 to 2, got 3"):
        read_nexus("a.h5", frame=3)


def test_modules_are_panels():
    data = np.arange(48, dtype=np.int32).reshape(6, 8)
    nexus("a.h5", data, modules=[((0, 0), (2, 8)), ((3, 1), (3, 7))])
    found = read_nexus("a.h5")
    assert [panel.tolist() for panel in found.panels] == [data[:2].tolist(), data[3:, 1:].tolist()]
    nexus("a.h5", data, modules=[((0, 0), (2, 8)), ((3, 1), (3, 8))])
    with pytest.raises(ValueError, match=r"module_1: expected a module inside \[6, 8\], got 3 to 6, 1 to 9"):
        read_nexus("a.h5")


@pytest.mark.parametrize("origin", [np.zeros(2), np.zeros(10**6, np.int32), np.int32(3)])
def test_modules_that_are_nowhere_are_refused(origin):
    nexus("a.h5", np.zeros((6, 8)), modules=[(origin, (2, 8)), ((0, 0), (2, 8))])
    with pytest.raises(ValueError, match=r"a\.h5: entry/.*data_origin: expected two or three whole numbers, got"):
        read_nexus("a.h5")


def test_data_in_other_files_of_the_folder(folder):
    data = np.arange(4 * 48, dtype=np.int32).reshape(4, 6, 8)
    for number in range(2):
        with h5py.File(f"part_{number}.h5", "w") as file:
            file["entry/data/data"] = data[2 * number : 2 * number + 2]
    nexus("a.h5", None)
    with h5py.File("a.h5", "a") as file:
        for number in range(2):
            file[f"entry/data/data_00000{number + 1}"] = h5py.ExternalLink(f"part_{number}.h5", "entry/data/data")
    found = read_nexus("a.h5", frame=3)
    assert found.frames == 4 and np.array_equal(found.panels[0], data[3])


@pytest.mark.parametrize("target", ["../secret.h5", "{absolute}", "sub/../../secret.h5", "link.h5"])
def test_links_out_of_the_folder_are_refused(folder, target):
    inside = folder / "inside"
    (inside / "sub").mkdir(parents=True)
    with h5py.File(folder / "secret.h5", "w") as file:
        file["entry/data/data"] = np.ones((6, 8))
    (inside / "link.h5").symlink_to(folder / "secret.h5")
    name = target.format(absolute=folder / "secret.h5")
    path = nexus(inside / "a.h5", None)
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = h5py.ExternalLink(name, "entry/data/data")
    with pytest.raises(ValueError, match="entry/data/data: expected a link to a file of its folder, got"):
        read_nexus(path)


def test_links_that_hide_behind_one_another_are_refused(folder):
    inside = folder / "inside"
    inside.mkdir()
    with h5py.File(folder / "secret.h5", "w") as file:
        file["data"] = np.ones((6, 8))
    with h5py.File(inside / "middle.h5", "w") as file:
        file["hop"] = h5py.ExternalLink("../secret.h5", "data")
    path = nexus(inside / "a.h5", None)
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = h5py.ExternalLink("middle.h5", "hop")
    with pytest.raises(ValueError, match="expected a link to a file of its folder"):
        read_nexus(path)
    with h5py.File(path, "a") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = h5py.SoftLink("/entry/data/data")
    with pytest.raises(ValueError, match="expected a dataset, got links without an end"):
        read_nexus(path)
    with h5py.File(path, "a") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = h5py.ExternalLink("nowhere.h5", "data")
    with pytest.raises(ValueError, match="expected a link to a file of its folder, got nowhere.h5"):
        read_nexus(path)


def test_bytes_of_other_files_are_not_read_as_pixels(folder):
    (folder / "secret").write_bytes(bytes(range(48)))
    inside = folder / "inside"
    inside.mkdir()
    path = nexus(inside / "a.h5", None)
    with h5py.File(path, "a") as file:
        file.create_dataset("entry/data/data", (6, 8), "u1", external=[(str(folder / "secret"), 0, 48)])
    with pytest.raises(ValueError, match="entry/data/data: expected data in files of its folder, got"):
        read_nexus(path)
    with h5py.File(folder / "other.h5", "w") as file:
        file["data"] = np.ones((6, 8))
    with h5py.File(inside / "middle.h5", "w") as file:
        file["hop"] = h5py.ExternalLink(str(folder / "other.h5"), "data")
        file["good"] = np.arange(48.0).reshape(6, 8)
    for name, complaint in (("hop", "expected a link to a file of its folder"), ("good", None)):
        path = nexus(inside / "c.h5", None)
        with h5py.File(path, "a") as file:
            layout = h5py.VirtualLayout((6, 8), "f8")
            layout[:] = h5py.VirtualSource("middle.h5", name, (6, 8))
            file.create_virtual_dataset("entry/data/data", layout)
        if complaint is None:
            assert read_nexus(path).panels[0][5, 7] == 47
        else:
            with pytest.raises(ValueError, match=complaint):
                read_nexus(path)
    path = nexus(inside / "b.h5", None)
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((6, 8), "f8")
        layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "data", (6, 8))
        file.create_virtual_dataset("entry/data/data", layout)
    with pytest.raises(ValueError, match="expected data in files of its folder, got"):
        read_nexus(path)


# --- damage ---------------------------------------------------------------------------------------------------------


def cbf():
    write_field("good.cbf", [counts()], SETTINGS)
    with open("good.cbf", "rb") as file:
        return file.read()


def without_checksum(raw):
    return b"\r\n".join(line for line in raw.split(b"\r\n") if not line.startswith(b"Content-MD5"))


def edited(old, new, checksum=False):
    def edit(raw):
        assert old in raw
        return (raw if checksum else without_checksum(raw)).replace(old, new)

    return edit


def changed_size(by):
    def edit(raw):
        start = raw.index(b"X-Binary-Size: ") + 15
        end = raw.index(b"\r", start)
        return without_checksum(raw[:start] + str(int(raw[start:end]) + by).encode() + raw[end:])

    return edit


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (changed_size(-3), "expected 77 pixels, got"),
        (changed_size(-1), "expected 77 pixels, got"),
        (changed_size(3), "expected 77 pixels, got more in its binary data"),
        (changed_size(10**9), "expected 77 pixels in 1000000"),
        (changed_size(-90), "expected 77 pixels, got"),
        (lambda raw: raw[:-200], "expected 77 pixels in "),
        (lambda raw: raw[: raw.index(b"\x0c\x1a\x04\xd5")], "expected the mark that begins binary data, found none"),
        (edited(b"Fastest-Dimension: 11", b"Fastest-Dimension: 99999"), "expected 99999 x 7 pixels, got 77 elements"),
        (edited(b"Fastest-Dimension: 11", b"Fastest-Dimension: -1"), "expected an image with pixels, got 7 x -1"),
        (edited(b"Fastest-Dimension: 11", b"Fastest-Dimension: 306783379"), "expected at most 67108864 pixels, got"),
        (edited(b"Fastest-Dimension: 11", b"Fastest-Dimension: x"), "expected whole numbers for the sizes"),
        (
            edited(b"x-CBF_BYTE_OFFSET", b"x-CBF_PACKED"),
            "expected pixels compressed as x-CBF_BYTE_OFFSET, got x-cbf_packed",
        ),
        (edited(b"signed 32-bit integer", b"signed 32-bit real IEEE"), "expected whole numbers, got elements of type"),
        (edited(b"signed 32-bit integer", b"signed 8-bit integer"), "expected pixels of type int8, got values outside"),
        (edited(b"0.1905 m", b"0..19 m"), "expected a number in the header, got '0..19'"),
        (lambda raw: raw.replace(b"\x80", b"\x81", 1), "expected pixels with the checksum that its header gives"),
    ],
)
def test_a_damaged_cbf_is_a_sentence(edit, complaint):
    raw = edit(cbf())
    with open("a.cbf", "wb") as file:
        file.write(raw)
    with asks_for_little(), pytest.raises(ValueError) as error:
        read_panels("a.cbf")
    assert str(error.value).startswith("a.cbf: ") and complaint in str(error.value) and "\n" not in str(error.value)


@contextlib.contextmanager
def asks_for_little(seconds=5.0, size=1 << 24):
    tracemalloc.start()
    begin = time.monotonic()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size and time.monotonic() - begin < seconds
    finally:
        tracemalloc.stop()


def edf(**entries):
    entries = {"ByteOrder": "LowByteFirst", "DataType": "FloatValue", "Dim_1": 4, "Dim_2": 3, **entries}
    text = "{\nHeaderID = EH:000001:000000:000000 ;\n" + "".join(f"{key} = {entries[key]} ;\n" for key in entries)
    return text.ljust(510).encode() + b"}\n" + bytes(48)


def tiff(*changes, pixels=bytes(48)):
    tags = {256: 4, 257: 3, 258: 32, 259: 1, 262: 1, 273: 200, 277: 1, 278: 3, 279: 48, 339: 3} | dict(changes)
    raw = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, value in tags.items():
        raw += struct.pack("<HHII", tag, 4, 1, value)
    return (raw + struct.pack("<I", 0)).ljust(200, b"\0") + pixels


def test_small_files_made_here_are_read():
    for name, raw in (("a.edf", edf()), ("a.tif", tiff())):
        with open(name, "wb") as file:
            file.write(raw)
        assert read_image(name).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "raw", "complaint"),
    [
        ("a.edf", edf(Dim_1=46341, Dim_2=46341), "expected at most 67108864 pixels, got 46341 x 46341"),
        ("a.edf", edf(Dim_1=4000), "expected 4000 x 3 pixels of 48000 bytes, got"),
        ("a.edf", edf()[:-20], "expected 4 x 3 pixels of 48 bytes, got"),
        ("a.edf", edf(Dim_1="x"), "expected whole numbers Dim_1 and Dim_2"),
        ("a.edf", edf(Dim_1="0"), "expected an image with pixels, got 3 x 0"),
        ("a.edf", edf(DataType="Nonsense"), "expected a DataType of numbers in the header, got 'nonsense'"),
        ("a.edf", edf(Compression="GZIP"), "expected EDF without compression, got GZIP"),
        ("a.edf", edf()[:300], "expected 4 x 3 pixels of 48 bytes, got"),
        ("a.edf", b"{\nHeaderID = 1;\n" + b"a" * 900_000 + b" " * 900_000, "expected whole numbers Dim_1 and Dim_2"),
        (
            "a.cbf",
            b"###CBF\n" + b"--CIF-BINARY-FORMAT-SECTION--" + b"\n" * 500_000 + b" " * 500_000 + b"\f\x1a\4\xd5",
            "expected whole numbers for the sizes of its binary data",
        ),
        (
            "a.cbf",
            b"###CBF\n" + b"--CIF-BINARY-FORMAT-SECTION--\n" * 30000,
            "expected the mark that begins binary data",
        ),
        ("a.cbf", b"###CBF\n" * 200_000, "got one without a binary section"),
        ("a.tif", tiff((256, 1 << 31)), "expected at most 67108864 pixels, got 3 x 2147483648"),
        ("a.tif", tiff((257, 30000)), "expected 4 x 30000 pixels of 32 bits, got 248 bytes"),
        ("a.tif", tiff()[:60], "expected a TIFF file that is complete"),
        ("a.tif", tiff((277, 3)), "expected one number per pixel"),
        ("a.tif", tiff()[:130] + struct.pack("<I", 8) + tiff()[134:], "expected a TIFF file of one page, got several"),
        ("a.tif", tiff((279, 20), pixels=bytes(20)), "expected"),
        ("a.tif", tiff((273, 10**6)), "expected"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(600), "expected a complete HDF5 file"),
    ],
)
def test_a_damaged_image_is_a_sentence(name, raw, complaint):
    with open(name, "wb") as file:
        file.write(raw)
    with asks_for_little(), pytest.raises(ValueError) as error:
        read_panels(name)
    assert str(error.value).startswith(f"{name}: ") and complaint in str(error.value) and "\n" not in str(error.value)


def group_for_data(path):
    nexus(path, None)
    with h5py.File(path, "a") as file:
        file.create_group("entry/data/data")


def cut(path):
    nexus(path, np.arange(48000).reshape(200, 240), compression="gzip")
    os.truncate(path, 9000)


def damaged_texts(path):
    """A free place of size 0 in a collection of texts: HDF5 itself would look at it for ever."""
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "text of a length of its own"
    with open(path, "r+b") as file:
        raw = file.read()
        start = raw.index(b"GCOL") + 16
        file.seek(start)
        file.write(bytes(16))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (cut, "expected a complete HDF5 file"),
        (group_for_data, "entry/data/data: expected a dataset, got a group"),
        (damaged_texts, "expected a complete HDF5 file, got one whose texts are damaged"),
        (lambda path: nexus(path, None), "expected an image at entry/data/data, found none"),
        (lambda path: nexus(path, np.zeros(5)), "expected an image, got shape [5]"),
        (
            lambda path: nexus(path, np.zeros((6, 8)), np.zeros((6, 7))),
            "pixel_mask: expected shape [6, 8] as the image",
        ),
        (lambda path: nexus(path, np.zeros((6, 8), "S4")), "expected numbers in blocks"),
        (
            lambda path: nexus(path, None, None) and virtual(path, (1, 46341, 46341)),
            "expected at most 67108864 pixels, got 46341 x 46341",
        ),
        (
            lambda path: nexus(path, None, None) and virtual(path, (1, 4000, 4000)),
            "expected 64000000 bytes of numbers, got 0 in the file",
        ),
        (
            lambda path: nexus(path, None, None) and virtual(path, (10**6, 20, 20), chunks=(10**6, 20, 20)),
            "expected numbers in blocks up to 1073741824 bytes, got float32 in blocks of 1600000000 bytes",
        ),
    ],
)
def test_a_damaged_nexus_file_is_a_sentence(make, complaint):
    make("a.h5")
    with asks_for_little(), pytest.raises(ValueError) as error:
        read_panels("a.h5")
    assert str(error.value).startswith("a.h5: ") and complaint in str(error.value) and "\n" not in str(error.value)


def virtual(path, shape, chunks=None):
    """A dataset of a size that it only claims."""
    with h5py.File(path, "a") as file:
        file.create_dataset("entry/data/data", shape, "f4", chunks=chunks)


def test_units_that_are_not_known_are_refused():
    nexus("a.h5", np.zeros((6, 8)))
    with h5py.File("a.h5", "a") as file:
        file["entry/instrument/eiger/distance"].attrs["units"] = "furlong"
    with pytest.raises(ValueError, match="distance: expected units m, metre, mm, um, µm, got furlong"):
        read_nexus("a.h5")


@pytest.mark.parametrize("name", ["a.cbf", "a.edf", "a.tif", "a.h5"])
def test_bytes_changed_at_random_are_an_image_or_a_sentence(name):
    write_field(name, [counts(20, 30)], SETTINGS)
    with open(name, "rb") as file:
        good = file.read()
    draw = np.random.default_rng(5)
    outcomes = set()
    for _ in range(60):
        raw = bytearray(good)
        for place in draw.integers(0, min(len(raw), 1500 if name != "a.h5" else 100), draw.integers(1, 4)):
            raw[place] = draw.integers(0, 256)
        with open(name, "wb") as file:
            file.write(raw if draw.random() < 0.7 else raw[: draw.integers(1, len(raw))])
        try:
            read_panels(name)
            outcomes.add("image")
        except ValueError as error:
            outcomes.add("sentence")
            assert str(error).startswith(f"{name}: ") and "\n" not in str(error)
    assert "sentence" in outcomes


def test_importing_the_package_imports_none_of_the_libraries():
    """They are imported in functions, where a file needs them."""
    folder = Path(images.__file__).parent
    sources = [*folder.rglob("*.py"), folder.parent / "hdf5.py"]
    assert len(sources) > 20
    for path in sources:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"gemmi", "fabio", "h5py", "hdf5plugin"}, path
