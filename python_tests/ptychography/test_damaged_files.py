"""Damaged and hostile files of scans: each gets one sentence that names the file, the dataset and what is wrong."""

import h5py
import numpy as np
import pytest
from scan_files import DETECTOR, GOLDEN, changed, edited, npz, odd_scan, put

from sem.ptycho import read_scan, write_scan


@pytest.fixture
def contents():
    return odd_scan()


def refused(path, *words):
    with pytest.raises(ValueError) as caught:
        read_scan(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message, f"{word!r} not in {message!r}"


COUNTS = np.ones((7, 16, 16), np.int32)
TRANSLATION = "entry_1/sample_1/geometry_1/translation"
BEAM = "entry_1/instrument_1/beam_1"
SOURCE = "entry_1/instrument_1/source_1"


def only_energy(value):
    return {f"{BEAM}/incident_wavelength": None, f"{BEAM}/energy": None, f"{SOURCE}/energy": value}


def with_nan(shape, index):
    values = np.zeros(shape)
    values[index] = np.nan
    return values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{DETECTOR}/data": None}, ("entry_1/data_1/data", "links to", "cannot be opened")),
        ({"entry_1/data_1": None, f"{DETECTOR}/data": None}, ("expected a dataset entry_1/data_1/data or", "none")),
        ({f"{DETECTOR}/distance": None}, ("distance in m, found none",)),
        ({f"{DETECTOR}/x_pixel_size": None}, ("x_pixel_size", "found one of them")),
        ({"entry_1/data_1": None, TRANSLATION: None}, ("translation", "found none")),
        ({f"{DETECTOR}/x_pixel_size": 55e-6}, ("square pixels", "7.5e-05 m by 5.5e-05 m")),
        ({f"{DETECTOR}/x_pixel_size": 75.0, f"{DETECTOR}/y_pixel_size": 75.0}, ("detector pixel", "got 75", "unit")),
        ({f"{DETECTOR}/distance": 2000.0}, ("distance", "0.001 to 100 m", "got 2000", "unit")),
        ({f"{DETECTOR}/distance": np.nan}, ("distance", "got nan")),
        ({f"{DETECTOR}/distance": 0.01, f"{DETECTOR}/x_pixel_size": 4e-3, f"{DETECTOR}/y_pixel_size": 4e-3}, ("half",)),
        ({f"{DETECTOR}/distance": b"2 m"}, ("distance", "expected one number")),
        ({f"{DETECTOR}/distance": np.array([2.0, 3.0])}, ("distance", "expected one number", "[2.0, 3.0]")),
        (only_energy(8000.0), ("energy", "keV (joules in the file)", "unit")),  # eV
        (only_energy(8.0), ("energy", "unit")),  # keV
        (only_energy(None), ("incident_wavelength", "found none")),
        ({f"{BEAM}/incident_wavelength": 1.55}, ("incident_wavelength", "Angstrom", "unit")),  # Angstrom
        ({f"{BEAM}/incident_wavelength": 1.2e-10}, ("beam_1/energy", "expected 10.332 keV", "got 8 keV")),
        ({f"{DETECTOR}/data": COUNTS[:5]}, (TRANSLATION[-11:], "expected real [5, 3]", "[7, 3]")),
        ({f"{DETECTOR}/data": COUNTS[:, :, :12]}, ("data", "square patterns", "[7, 16, 12]")),
        ({f"{DETECTOR}/data": COUNTS[0]}, ("data", "square patterns", "[16, 16]")),
        ({f"{DETECTOR}/data": COUNTS[:0]}, ("data", "at least one pattern", "[0, 16, 16]")),
        ({f"{DETECTOR}/data": COUNTS * 1j}, ("data", "real square patterns", "complex128")),
        ({f"{DETECTOR}/data": -COUNTS}, ("data", "finite counts >= 0", "-1 in pattern 0, pixel [0, 0]")),
        ({f"{DETECTOR}/data": with_nan((7, 16, 16), (6, 3, 2))}, ("nan in pattern 6, pixel [3, 2]",)),
        ({TRANSLATION: with_nan((7, 3), (4, 1))}, ("translation", "finite positions", "got 1", "first 4")),
        ({TRANSLATION: np.zeros((7, 3))}, ("translation", "different positions")),
        ({TRANSLATION: np.arange(21.0).reshape(7, 3) * 1e-3}, ("translation", "overlap", "unit")),  # mm
        ({TRANSLATION: np.arange(21.0).reshape(7, 3)}, ("translation", "at most 100000", "unit")),  # um
        ({TRANSLATION: np.zeros((7, 2))}, ("translation", "expected real [7, 3]", "[7, 2]")),
        ({f"{DETECTOR}/mask": np.ones((16, 16), int)}, ("mask", "at least one valid pixel")),
        ({f"{DETECTOR}/mask": np.zeros((16, 15), int)}, ("mask", "[16, 15]")),
        ({f"{DETECTOR}/mask": np.full((16, 16), 0.5)}, ("mask", "expected bits", "float64")),
        ({f"{SOURCE}/probe": np.ones((12, 12), complex)}, ("probe", "expected complex [16, 16]", "[12, 12]")),
        ({f"{SOURCE}/probe": np.full((16, 16), np.nan + 0j)}, ("probe", "finite numbers")),
        (
            {"entry_1/data_1": None, DETECTOR: h5py.ExternalLink("gone.h5", "/x")},
            ("links to gone.h5:/x, which cannot be opened",),
        ),
        ({f"{SOURCE}/probe": np.zeros((16, 16), [("r", "f8"), ("i", "f4")])}, ("probe", "numbers or text", "'i'")),
        ({f"{DETECTOR}/distance": np.longdouble(2)}, ("distance", "numbers or text")),
        ({"entry_1/note_1/description": np.array(b"a\0b")}, ("note_1/description", "text without NUL")),
        ({"entry_1": None}, ("expected entry_1 (.cxi), chunks (.ptyd)", "got cxi_version")),
    ],
)
def test_a_damaged_cxi_gets_a_sentence(tmp_path, changes, words):
    refused(edited(tmp_path, "tiny.cxi", lambda file: [put(file, *change) for change in changes.items()]), *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"meta/energy": 8000.0}, ("meta/energy", "0.001 to 150 keV", "got 8000", "unit")),  # eV
        ({"meta/energy": None}, ("meta/energy", "none")),
        ({"meta/distance": None}, ("meta/distance in m, found none",)),
        ({"meta/psize": np.array([75e-6, 55e-6])}, ("meta/psize", "square pixels")),
        ({"meta/psize": None}, ("meta/psize", "none")),
        ({"meta/psize": b"75um"}, ("meta/psize", "one or two numbers")),
        ({"meta/shape": np.array([16, 12])}, ("meta/shape", "16 x 16", "got 12")),
        ({"meta/center": np.array([8.0, 5.0])}, ("meta/center", "pixel 8 of 16", "got 5")),
        ({"meta/num_frames": 9}, ("chunks: expected 9 patterns, as meta/num_frames says, got 7",)),
        ({"chunks/1": None}, ("chunks: expected 7 patterns", "got 4")),
        ({"chunks/0": None}, ("chunks: expected groups 0, 1, 2", "got 1")),
        ({"chunks/0": None, "chunks/1": None}, ("chunks: expected groups", "none")),
        ({"chunks/1/data": None}, ("expected a dataset chunks/1/data",)),
        ({"chunks/1/data": COUNTS[:3, :12, :12]}, ("chunks/1/data", "16 x 16", "got 12 x 12")),
        ({"chunks/1/positions": np.zeros((4, 2))}, ("chunks/1/positions", "expected real [3, 2]", "[4, 2]")),
        ({"chunks/1/positions": with_nan((3, 2), (1, 1))}, ("positions", "finite positions", "first 5")),
        ({"chunks/1/indices": np.zeros(2, int)}, ("chunks/1/indices", "[3]", "[2]")),
        ({"chunks/1/weights": None}, ("chunks: expected weights in all or in none, 1 have them",)),
        ({"chunks/1/weights": np.ones((3, 16, 15))}, ("chunks/1/weights", "[3, 16, 16]", "[3, 16, 15]")),
        ({"chunks/1/weights": -np.ones((3, 16, 16))}, ("weights", "finite numbers >= 0")),
        ({"chunks/1": h5py.ExternalLink("gone.part001", "/")}, ("chunks/1: links to gone.part001:/, which cannot",)),
    ],
)
def test_a_damaged_ptyd_gets_a_sentence(tmp_path, changes, words):
    refused(edited(tmp_path, "tiny.ptyd", lambda file: [put(file, *change) for change in changes.items()]), *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diff3d": None}, ("expected an array diff3d or diffraction",)),
        ({"xcoords": None}, ("expected an array xcoords",)),
        ({"xcoords": np.zeros(6)}, ("xcoords: expected 7 numbers", "got 6")),
        ({"xcoords": np.zeros(6), "ycoords": np.zeros(6)}, ("diff3d", "[6, N, N] or [N, N, 6]", "[7, 16, 16]")),
        ({"ycoords": np.zeros((7, 1))}, ("ycoords: expected real [J]", "[7, 1]")),
        ({"ycoords": changed(2, np.inf, "ycoords")}, ("finite positions", "first 2")),
        ({"diff3d": COUNTS}, ("diff3d: expected amplitudes", "int32", "counts?")),
        ({"diff3d": changed((1, 2, 3), -1, "diff3d")}, ("finite amplitudes >= 0", "pattern 1, pixel [2, 3]")),
        ({"diff3d": changed((0, 0, 0), 1e300, "diff3d")}, ("finite amplitudes", "1e+300")),
        ({"diff3d": np.ones((7, 16, 12))}, ("diff3d: expected square patterns", "[7, 16, 12]")),
        ({"diff3d": np.ones((0, 16, 16)), "xcoords": np.ones(0), "ycoords": np.ones(0)}, ("at least one pattern",)),
        ({"probeGuess": np.ones((16, 15), complex)}, ("probeGuess", "[16, 15]")),
        ({"probeGuess": np.array([{}, None])}, ("probeGuess", "pickled Python objects", "not loaded")),
        ({"objectGuess": np.ones(4, complex)}, ("objectGuess: expected complex [H, W]", "[4]")),
        ({"scan_index": np.zeros(6)}, ("scan_index: expected a number per pattern, [7]", "[6]")),
        ({"wavelength": 8000.0, "distance": 2.0, "detector_pixel": 75.0}, ("detector pixel", "got 75", "unit")),
    ],
)
def test_a_damaged_npz_gets_a_sentence(tmp_path, changes, words):
    refused(npz(tmp_path, **changes), *words)


def put_attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (put_attribute("version", 2), ("expected version 1", "got 2")),
        (lambda file: put(file, "counts", None), ("expected a dataset amplitudes or counts",)),
        (lambda file: put(file, "positions", None), ("expected a dataset positions",)),
        (lambda file: put(file, "positions", np.zeros((3, 2))), ("positions: expected real [20, 2]",)),
        (lambda file: put(file, "positions", with_nan((20, 2), 0)), ("positions: expected finite",)),
        (lambda file: put(file, "positions", b"here"), ("positions: expected numbers",)),
        (lambda file: put(file, "counts", np.ones((2, 10, 15, 15), np.uint8)), ("counts: expected unsigned",)),
        (lambda file: put(file, "counts", -np.ones((20, 15, 15), int)), ("counts: expected unsigned", "int64")),
        (lambda file: put(file, "weight", np.ones((3, 3))), ("weight: expected shape",)),
        (lambda file: put(file, "probe", np.ones((15, 15), complex)), ("probe: expected complex [M, 15, 15]",)),
        (lambda file: put(file, "geometry/distance", -1.0), ("distance: expected a finite number > 0",)),
        (lambda file: put(file, "geometry/distance", None), ("distance: expected a finite number > 0, got nan",)),
        (lambda file: put(file, "provenance", 3), ("provenance: expected text without NUL, got int64",)),
    ],
)
def test_a_damaged_own_file_gets_a_sentence(tmp_path, contents, edit, words):
    path = tmp_path / "scan.h5"
    write_scan(path, contents)
    with h5py.File(path, "r+") as file:
        edit(file)
    refused(path, *words)


@pytest.mark.parametrize("name", ["tiny.cxi", "tiny.ptyd", "tiny.npz"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_a_truncated_file_gets_a_sentence(tmp_path, name, share):
    whole = (GOLDEN / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "complete")


def test_a_flipped_byte_of_our_own_patterns_is_found(tmp_path, contents):
    path = tmp_path / "scan.h5"
    write_scan(path, contents)
    with h5py.File(path) as file:
        at = file["counts"].id.get_chunk_info(3).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[at + 20] ^= 0xFF
    path.write_bytes(damaged)
    refused(path, "counts: cannot be read")


def test_flipped_bytes_never_end_in_a_traceback(tmp_path):
    """Whatever a damaged byte does, the reader either reads a scan or says a sentence that names the file."""
    whole = (GOLDEN / "tiny.npz").read_bytes()
    path = tmp_path / "scan.npz"
    sentences = 0
    for at in range(3, len(whole), len(whole) // 150):
        damaged = bytearray(whole)
        damaged[at] ^= 0x5A
        path.write_bytes(damaged)
        try:
            assert len(read_scan(path).scan) > 0
        except ValueError as error:
            sentences += 1
            assert str(path) in str(error) and type(error) is ValueError
    assert sentences > 0


@pytest.mark.parametrize("name", ["tiny.cxi", "tiny.ptyd"])
@pytest.mark.parametrize(
    "call", ["Group.__iter__", "Group.get", "Group.__getitem__", "Dataset.__getitem__", "Dataset.dtype"]
)
@pytest.mark.parametrize(
    "error", [RuntimeError("addr\noverflow"), KeyError("bad heap"), OSError("checksum"), TypeError()]
)
def test_what_h5py_raises_of_damaged_bytes_becomes_a_sentence(tmp_path, monkeypatch, name, call, error):
    """HDF5's own memory is not to be trusted with random bytes in a process of many tests, so that its errors are
    raised here."""
    path = edited(tmp_path, name, lambda file: None)

    def fails(*_args, **_kwargs):
        raise error

    holder, method = call.split(".")
    monkeypatch.setattr(getattr(h5py, holder), method, property(fails) if method == "dtype" else fails)
    refused(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("an empty file",)),
        (b"amplitude,phase\n1,2\n", ("expected an HDF5 file or a .npz archive", "b'amplitud'")),
        (b"PK\x03\x04" + bytes(200), ("complete .npz archive",)),
    ],
)
def test_what_is_no_such_file_gets_a_sentence(tmp_path, content, words):
    path = tmp_path / "scan.cxi"
    path.write_bytes(content)
    refused(path, *words)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="scan.cxi"):
        read_scan(tmp_path / "scan.cxi")


def test_other_units_that_a_file_states_are_not_taken_for_metres(tmp_path):
    def millimetres(file):
        file[TRANSLATION].attrs["units"] = "mm"

    refused(edited(tmp_path, "tiny.cxi", millimetres), "translation: expected units m, got mm")


def test_patterns_larger_than_memory_are_not_begun(tmp_path):
    def endless(file):
        put(file, f"{DETECTOR}/data", None)
        file.create_dataset(f"{DETECTOR}/data", (10**8, 4096, 4096), np.uint16, chunks=(1, 4096, 4096))

    refused(edited(tmp_path, "tiny.cxi", endless), "100000000 patterns of 4096 x 4096", "GiB of memory")
