"""Files of scans: three formats of other packages by stored numbers, our own bit for bit, and what no format holds."""

import json
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from scan_files import DETECTOR, GOLDEN, edited, npz, odd_scan, put, same_bits

from sem.ptycho import (
    AXES,
    Geometry,
    Scan,
    ScanFile,
    disk_probe,
    electron_wavelength,
    photon_wavelength,
    read_scan,
    write_scan,
)

EXPECTED = json.loads((GOLDEN / "formats.json").read_text())["formats"]["expected"]


@pytest.fixture
def contents():
    return odd_scan()


@pytest.mark.parametrize("name", ["tiny.cxi", "tiny.ptyd", "tiny.npz"])
def test_other_packages_files_read_as_stored(name):
    found = read_scan(GOLDEN / name)
    scan = found.scan
    counts = scan.amplitudes.double().square()
    assert (len(scan), scan.side) == (EXPECTED["patterns"], EXPECTED["n"])
    assert float(counts.sum()) == pytest.approx(EXPECTED["counts_sum"], abs=0.1)
    assert counts[0, 0].round().tolist() == EXPECTED["first_pattern_fft_order_row0"]
    positions = scan.positions.double()
    expected = torch.tensor(EXPECTED["positions_px_minus_mean"], dtype=torch.float64)
    torch.testing.assert_close(positions - positions.mean(0), expected, rtol=0, atol=1e-5)
    assert scan.positions.dtype == torch.float32 and scan.positions.amin(0).tolist() == [8, 8]
    if name == "tiny.npz":
        assert found.geometry is None and found.object.shape == (40, 44)
    else:
        geometry = found.geometry
        assert geometry.wavelength * 1e-10 == pytest.approx(EXPECTED["wavelength_m"], rel=1e-6)
        assert geometry.distance == EXPECTED["distance_m"] and geometry.detector_pixel == EXPECTED["detector_pixel_m"]
        assert geometry.object_pixel == pytest.approx(EXPECTED["object_pixel_m"], rel=1e-6)
        assert float((scan.weight * counts).sum()) == pytest.approx(EXPECTED["counts_sum_masked"], abs=0.1)
    if name != "tiny.ptyd":
        assert found.probe.shape == (1, 16, 16) and found.probe.dtype == torch.complex64


def test_the_three_formats_hold_one_scan():
    first, second, third = (read_scan(GOLDEN / f"tiny.{suffix}") for suffix in ("cxi", "ptyd", "npz"))
    assert same_bits(first.scan.amplitudes, second.scan.amplitudes) and same_bits(first.scan.weight, second.scan.weight)
    torch.testing.assert_close(first.scan.amplitudes, third.scan.amplitudes)
    torch.testing.assert_close(first.probe, third.probe)


def test_wavelengths():
    assert photon_wavelength(EXPECTED["energy_kev"]) * 1e-10 == pytest.approx(EXPECTED["wavelength_m"], rel=1e-12)
    # h / sqrt(2 m e V (1 + e V / 2 m c^2)) in SI
    h, m, e, c, volt = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0, 200e3
    known = h / np.sqrt(2 * m * e * volt * (1 + e * volt / (2 * m * c**2)))
    assert electron_wavelength(200.0) * 1e-10 == pytest.approx(known, rel=1e-8)


def test_own_files_come_back_bit_for_bit(tmp_path, contents):
    background = torch.rand(15, 15)
    weight = torch.rand(20, 15, 15)
    strange = contents.scan.amplitudes.clone()
    strange[3, 2, 1] = float("nan")  # a dead pixel
    weight[3, 2, 1] = 0
    strange[3, 2, 2] = -0.0
    for number, scan in enumerate(
        [
            contents.scan,  # whole counts
            Scan(strange, contents.scan.positions.double(), weight, background),
            Scan(contents.scan.amplitudes.double() * 1.1, contents.scan.positions, contents.scan.weight > 0),
            Scan(torch.rand(2, 9, 9), torch.zeros(2, 2)),
        ]
    ):
        probe = contents.probe.to(torch.complex128) / 3 if scan.side == 15 else None
        geometry = contents.geometry if scan.side == 15 else None
        written = ScanFile(scan, probe, torch.randn(30, 40, dtype=torch.complex64), geometry, contents.provenance)
        write_scan(tmp_path / f"{number}.h5", written)
        found = read_scan(tmp_path / f"{number}.h5")
        for name in ("amplitudes", "positions", "weight", "background"):
            assert same_bits(getattr(found.scan, name), getattr(scan, name)), name
        assert same_bits(found.probe, probe) and same_bits(found.object, written.object)
        assert found.geometry == geometry and found.provenance == contents.provenance
    with h5py.File(tmp_path / "0.h5") as file:
        assert file["counts"].dtype == np.uint16 and "amplitudes" not in file


@pytest.mark.parametrize("suffix", ["cxi", "npz"])
def test_other_formats_keep_what_they_hold(tmp_path, contents, suffix):
    if suffix == "npz":
        scan = Scan(contents.scan.amplitudes, contents.scan.positions)
        contents = replace(contents, scan=scan, object=torch.randn(60, 50, dtype=torch.complex64))
    path = tmp_path / f"scan.{suffix}"
    write_scan(path, contents)
    found = read_scan(path)
    assert same_bits(found.scan.amplitudes, contents.scan.amplitudes)
    assert same_bits(found.scan.weight, contents.scan.weight) and same_bits(found.probe, contents.probe)
    torch.testing.assert_close(found.scan.positions, contents.scan.positions, rtol=0, atol=1e-5)
    assert same_bits(found.object, contents.object) and found.provenance == contents.provenance
    assert found.geometry.wavelength == pytest.approx(contents.geometry.wavelength, rel=1e-12)
    assert found.geometry.object_pixel == pytest.approx(contents.geometry.object_pixel, rel=1e-12)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("side", [8, 9])
def test_the_zero_frequency_is_where_each_side_expects_it(tmp_path, side):
    """In the middle, N // 2, of files, at [0, 0] of scans; two wrong shifts would cancel for an odd side."""
    amplitudes = torch.arange(3.0 * side * side).view(3, side, side)
    scan = Scan(amplitudes, torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]))
    whole = ScanFile(scan, disk_probe(side), None, Geometry(1.5, 2.0, 75e-6, side))
    write_scan(tmp_path / "scan.cxi", whole)
    write_scan(tmp_path / "scan.npz", whole)
    with h5py.File(tmp_path / "scan.cxi") as file, np.load(tmp_path / "scan.npz") as archive:
        for written in (np.sqrt(file["entry_1/data_1/data"][()]), archive["diff3d"]):
            assert (
                written[1, side // 2, side // 2] == side * side and written[1, side // 2, side // 2 + 1] == side**2 + 1
            )
    for suffix in ("cxi", "npz"):
        assert same_bits(read_scan(tmp_path / f"scan.{suffix}").scan.amplitudes, amplitudes)


def test_amplitudes_that_are_no_counts_survive_cxi(tmp_path, contents):
    scan = Scan(torch.rand(20, 15, 15), contents.scan.positions)
    write_scan(tmp_path / "scan.cxi", replace(contents, scan=scan))
    assert same_bits(read_scan(tmp_path / "scan.cxi").scan.amplitudes, scan.amplitudes)


def test_the_suffix_proves_nothing(tmp_path):
    for suffix in ("cxi", "ptyd", "npz"):
        path = tmp_path / f"{suffix}.h5"
        path.write_bytes((GOLDEN / f"tiny.{suffix}").read_bytes())
        assert len(read_scan(path).scan) == 7


@pytest.mark.parametrize("axes", AXES)
def test_axes_are_laid_as_asked(axes):
    plain = read_scan(GOLDEN / "tiny.npz").scan.positions
    found = read_scan(GOLDEN / "tiny.npz", axes=axes, margin=3).scan.positions
    for column, part in enumerate((axes[:2], axes[2:])):
        source = plain[:, "yx".index(part[1])] * (-1 if part[0] == "-" else 1)
        torch.testing.assert_close(found[:, column], source - source.min() + 3, rtol=0, atol=1e-5)


def test_a_sample_moves_against_the_beam(tmp_path):
    """A pattern of a beam further down and left has a sample further up and right."""
    path = edited(tmp_path, "tiny.cxi", lambda file: None)
    with h5py.File(path, "r+") as file:
        file["entry_1/sample_1/geometry_1/translation"][0] += (1e-6, -2e-6, 0)
    pixel = EXPECTED["object_pixel_m"]
    moved, before = (read_scan(at).scan.positions for at in (path, GOLDEN / "tiny.cxi"))
    step = (moved[0] - moved[1]) - (before[0] - before[1])
    assert step.tolist() == pytest.approx([2e-6 / pixel, -1e-6 / pixel], abs=1e-4)


def test_rasters_are_flattened_in_blocks(tmp_path, monkeypatch):
    def to_raster(file):
        counts = file[f"{DETECTOR}/data"][:6]
        translation = file["entry_1/sample_1/geometry_1/translation"][:6]
        put(file, f"{DETECTOR}/data", counts.reshape(2, 3, 16, 16))
        put(file, "entry_1/sample_1/geometry_1/translation", translation.reshape(2, 3, 3))

    monkeypatch.setattr("sem.ptycho.files.patterns.BLOCK", 1)
    found, whole = read_scan(edited(tmp_path, "tiny.cxi", to_raster)).scan, read_scan(GOLDEN / "tiny.cxi").scan
    assert same_bits(found.amplitudes, whole.amplitudes[:6])
    steps = whole.positions[:6] - whole.positions[:1]
    torch.testing.assert_close(found.positions - found.positions[:1], steps, rtol=0, atol=1e-5)


def test_impossible_counts_below_a_mask_are_no_counts(tmp_path):
    def gap(file):
        file[f"{DETECTOR}/mask"][9, 9] = 4
        file[f"{DETECTOR}/data"][2, 9, 9] = -1

    scan = read_scan(edited(tmp_path, "tiny.cxi", gap)).scan
    assert float(scan.amplitudes.isnan().sum()) == 0 and scan.weight[1, 1] == 0 == scan.amplitudes[2, 1, 1]


def test_chunks_in_files_of_their_own_and_in_order_of_their_numbers(tmp_path):
    with h5py.File(GOLDEN / "tiny.ptyd") as golden, h5py.File(tmp_path / "scan.ptyd", "w") as file:
        golden.copy("meta", file)
        for number in range(12):  # "10" sorts before "2" as text
            with h5py.File(tmp_path / f"scan.ptyd.part{number:03d}", "w") as part:
                for name in ("data", "positions"):
                    whole = np.concatenate([golden[f"chunks/{k}/{name}"][()] for k in (0, 1)])
                    part[name] = whole[[number % 7]] * (1 if name == "positions" else number + 1)
                part["weights"] = np.zeros(0)
                part["indices"] = np.array([number])
            file[f"chunks/{number}"] = h5py.ExternalLink(f"scan.ptyd.part{number:03d}", "/")
        weight = np.ones((16, 16))
        weight[8, 9] = 0
        file["info/weight2d"] = weight
        put(file, "meta/num_frames", 12)
        none = file.create_dataset("meta/rebin", data=np.zeros(1))
        none.attrs["type"] = "None"
    whole, found = read_scan(GOLDEN / "tiny.ptyd").scan, read_scan(tmp_path / "scan.ptyd").scan
    factors = torch.arange(1, 8).view(7, 1, 1)
    torch.testing.assert_close(found.amplitudes[:7].square(), whole.amplitudes.square() * factors)
    assert found.weight.shape == (16, 16) and float(found.weight.sum()) == 255 and found.weight[0, 1] == 0


def test_one_scan_of_several(tmp_path):
    path = npz(tmp_path, scan_index=np.array([0, 0, 0, 2, 2, 2, 2]))
    with pytest.raises(ValueError, match="scan_index: .*holds the scans 0, 2: choose one of them, got None"):
        read_scan(path)
    assert len(read_scan(path, scan_index=2).scan) == 4
    with pytest.raises(ValueError, match="scan_index: only .npz files"):
        read_scan(GOLDEN / "tiny.cxi", scan_index=1)
    with pytest.raises(ValueError, match="scan_index: .* choose one of them, got 3"):
        read_scan(path, scan_index=3)


def test_patterns_may_come_last(tmp_path):
    with np.load(GOLDEN / "tiny.npz") as golden:
        last = np.moveaxis(golden["diff3d"], 0, 2)
    found = read_scan(npz(tmp_path, diff3d=None, diffraction=last)).scan
    assert same_bits(found.amplitudes, read_scan(GOLDEN / "tiny.npz").scan.amplitudes)


def test_arguments_that_cannot_be(tmp_path, contents):
    with pytest.raises(ValueError, match=r"axes: expected one of \+y\+x, .*, got 'yx'"):
        read_scan(GOLDEN / "tiny.cxi", axes="yx")
    with pytest.raises(ValueError, match="margin: expected a number >= 0, got -1"):
        read_scan(GOLDEN / "tiny.cxi", margin=-1)
    write_scan(tmp_path / "scan.h5", contents)
    with pytest.raises(ValueError, match="comes back as it was written"):
        read_scan(tmp_path / "scan.h5", margin=3)
    with pytest.raises(ValueError, match="geometry: expected side 15, .* got 16"):
        replace(contents, geometry=Geometry(1.0, 1.0, 1e-4, 16))
    with pytest.raises(ValueError, match="distance: expected a finite number > 0, got 0"):
        Geometry(1.0, 0.0, 1e-4, 16)
    with pytest.raises(ValueError, match=r"probe: expected complex \[M, 15, 15\]"):
        replace(contents, probe=torch.ones(15, 15))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("scan.ptyd", {}, "expected a name that ends in .h5, .cxi, .npz, got '.ptyd'"),
        ("scan.cxi", {"geometry": None}, "needs a geometry"),
        ("scan.cxi", {"object": torch.ones(3, 3, dtype=torch.complex64)}, "holds no object"),
        ("scan.cxi", {"scan": "background"}, "no background"),
        ("scan.cxi", {"scan": "half"}, "weight: the format holds 0 and 1"),
        ("scan.npz", {}, "holds no weight"),
        ("scan.npz", {"scan": "plain", "probe": None}, "needs a probe"),
        ("scan.h5", {"scan": "empty", "probe": None}, "at least one pattern"),
        ("scan.h5", {"scan": "bfloat16"}, "amplitudes: expected a dtype that files hold, got torch.bfloat16"),
    ],
)
def test_what_a_format_cannot_hold_is_not_left_out(tmp_path, contents, name, change, words):
    data, positions, weight = contents.scan.amplitudes, contents.scan.positions, contents.scan.weight
    scans = {
        "background": Scan(data, positions, None, torch.ones(15, 15)),
        "half": Scan(data, positions, weight / 2),
        "plain": Scan(data, positions),
        "empty": Scan(data[:0], positions[:0]),
        "bfloat16": Scan(data.bfloat16(), positions),
    }
    if "scan" in change:
        change = change | {"scan": scans[change["scan"]]}
    with pytest.raises(ValueError, match=words):
        write_scan(tmp_path / name, replace(contents, **change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["h5", "cxi"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, contents, suffix, monkeypatch):
    path = tmp_path / f"scan.{suffix}"
    write_scan(path, contents)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(OSError, match="no space"):
        write_scan(path, contents)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_ptychography_imports_without_h5py():
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "import sem, sem.ptycho\n"
        f"assert len(sem.ptycho.read_scan({str(GOLDEN / 'tiny.npz')!r}).scan) == 7\n"
        "try:\n"
        f"    sem.ptycho.read_scan({str(GOLDEN / 'tiny.cxi')!r})\n"
        "except ImportError as error:\n"
        "    assert \"pip install 'sem-torch[ptycho]'\" in str(error)\n"
        "else:\n"
        "    raise AssertionError('read without h5py')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
