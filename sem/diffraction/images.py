"""Images on the disk: raw floats, SMV with its header, PGM, formats of beamlines. Written whole or not at all."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem.diffraction.files.access import library
from sem.diffraction.files.field_image import FieldImage
from sem.diffraction.files.kinds import CBF, EDF, EXPERIMENTS, HDF5, MTZ, NPY, PGM, SMV, TIFF, kind_of
from sem.files import replacing

SMV_HEADER = 512
_LARGEST_SMV_HEADER = 1 << 20
_PGM_HEADER = 4096  # bytes in which a header ends
OVERLOAD = 65535
ADC_OFFSET = 40.0
BAD = -1  # what a bad pixel is written as where nothing else can mark it
AUTOMATIC_MAXIMUM = 55000.0
"""The count that the brightest pixel of an SMV image is scaled to when no scale is given."""


def write_float(path: str | Path, image: Tensor) -> None:
    """``image`` ``[slow, fast]`` as raw float32 in the machine's byte order, without a header.

    Raises:
        OSError: the file could not be written.
    """
    with replacing(path) as file:
        file.write(_array(image).astype(np.float32).tobytes())


def read_float(path: str | Path, shape: tuple[int, int] | None = None) -> Tensor:
    """The raw float32 image ``[slow, fast]`` in a file; a square one if no shape is given.

    Raises:
        ValueError: the file cannot be read, or its size does not fit.
    """
    raw = _read(path)
    pixels = len(raw) // 4
    side = math.isqrt(pixels)
    slow, fast = shape or (side, side)
    if len(raw) % 4 or pixels != slow * fast or not pixels:
        wanted = "a square image" if shape is None else f"{slow} x {fast} pixels"
        raise ValueError(f"{path}: expected {wanted} of 4-byte floats, got {len(raw)} bytes")
    return torch.from_numpy(np.frombuffer(raw, np.float32).reshape(slow, fast).copy())


def counts(
    image: Tensor, scale: float | None = None, offset: float = ADC_OFFSET, computed: Tensor | None = None
) -> tuple[Tensor, float]:
    """``image`` as whole counts ``[slow, fast]`` of 0 to 65535, int32, and the scale used.

    The nearest to ``image * scale + offset``, clipped; a scale of None makes the maximum 55000. Pixels that were not
    ``computed`` (bool, all by default) are 0, without the offset.

    Example:
        >>> counts(torch.tensor([[0.0, 1.0, 5e4]]), scale=2.0)[0].tolist()
        [[40, 42, 65535]]
    """
    values = image.detach().to(torch.float64)
    if scale is None or scale <= 0:
        scale = automatic_scale(float(values.max()))
    whole = (values * scale + offset + 0.5).floor().clamp(0, OVERLOAD).to(torch.int32)
    return whole if computed is None else torch.where(computed.to(whole.device), whole, 0), scale


def automatic_scale(largest: float) -> float:
    """What makes 55000 of ``largest``; 1 where that is not above 0."""
    return AUTOMATIC_MAXIMUM / largest if largest > 0 else 1.0


def write_smv(path: str | Path, image: Tensor, header: Mapping[str, str] | None = None) -> None:
    """Whole counts ``[slow, fast]`` of 0 to 65535 as unsigned 16-bit numbers behind an SMV header.

    ``header`` is added to the entries that describe the data. The header has 512 bytes, or as many times that as it
    takes, and says so.

    Raises:
        ValueError: counts outside that range.
        OSError: the file could not be written.
    """
    array = _array(image)
    if array.size and (array.min() < 0 or array.max() > OVERLOAD):
        raise ValueError(f"{path}: expected counts from 0 to {OVERLOAD}, got {array.min()} to {array.max()}")
    raw = smv_header_bytes((array.shape[0], array.shape[1]), header)
    with replacing(path) as file:
        file.write(raw)
        file.write(array.astype(np.uint16).tobytes())


def smv_header_bytes(shape: tuple[int, int], header: Mapping[str, str] | None = None) -> bytes:
    """The header of an SMV image of ``shape`` (slow, fast) with the entries ``header``, padded with blanks.

    512 bytes, or as many times that as it takes.

    Raises:
        ValueError: an entry that is not ASCII or has a character that ends one.
    """
    slow, fast = shape
    for name, value in (header or {}).items():
        if not f"{name}{value}".isascii() or any(mark in f"{name}{value}" for mark in "=;{}\n\f"):
            raise ValueError(f"SMV header: expected ASCII without any of = ; {{ }}, got {name!r}, {value!r}")
    entries = {
        "HEADER_BYTES": str(SMV_HEADER),
        "DIM": "2",
        "BYTE_ORDER": f"{sys.byteorder}_endian",
        "TYPE": "unsigned_short",
        "SIZE1": str(fast),
        "SIZE2": str(slow),
        **(header or {}),
    }
    size = SMV_HEADER
    while len(raw := _smv_header({**entries, "HEADER_BYTES": str(size)})) > size:
        size += SMV_HEADER
    return raw.ljust(size, b" ")


def _smv_header(entries: Mapping[str, str]) -> bytes:
    return ("{\n" + "".join(f"{name}={value};\n" for name, value in entries.items()) + "}\f").encode("ascii")


def read_smv(path: str | Path) -> tuple[Tensor, dict[str, str]]:
    """The counts ``[slow, fast]`` of an SMV image, int32, and its header.

    Raises:
        ValueError: the file cannot be read, or is no SMV image of unsigned 16-bit numbers.
    """
    raw = _read(path)
    opening, closed, _ = raw[:_LARGEST_SMV_HEADER].partition(b"}")
    if not opening.startswith(b"{") or not closed:
        raise ValueError(f"{path}: expected an SMV image that begins with a header in braces, got other bytes")
    # nanoBragg leaves out the semicolon behind one of its entries: the end of a line ends one too
    entries = opening[1:].decode("latin-1").replace("\n", ";").split(";")
    pairs = (entry.partition("=") for entry in entries)
    header = {name.strip(): value.strip() for name, equals, value in pairs if equals}
    try:
        start, fast, slow = (int(header[name]) for name in ("HEADER_BYTES", "SIZE1", "SIZE2"))
    except (KeyError, ValueError):
        raise ValueError(f"{path}: expected whole numbers HEADER_BYTES, SIZE1 and SIZE2 in the header") from None
    kind = header.get("TYPE", "unsigned_short")
    if kind != "unsigned_short":
        raise ValueError(f"{path}: expected TYPE=unsigned_short, got {kind}")
    order = ">" if header.get("BYTE_ORDER", "little_endian") == "big_endian" else "<"
    data = raw[start : start + 2 * fast * slow]
    if min(start, fast, slow) < 1 or len(data) != 2 * fast * slow:
        raise ValueError(f"{path}: expected {fast} x {slow} pixels of 2 bytes, got {len(data)} bytes")
    values = np.frombuffer(data, f"{order}u2").reshape(slow, fast).astype(np.int32)
    return torch.from_numpy(values), header


def write_pgm(
    path: str | Path,
    image: Tensor,
    scale: float | None = None,
    inside: Tensor | None = None,
    computed: Tensor | None = None,
) -> None:
    """``image`` ``[slow, fast]`` times ``scale`` as bytes, binary PGM.

    A scale of None makes 250 of five times the standard deviation of the pixels ``inside`` the region (bool, all by
    default) from the mean of those of them that are ``computed`` (all of them by default).

    Raises:
        OSError: the file could not be written.
    """
    values = image.detach().to(torch.float64)
    if scale is None or scale <= 0:
        chosen = values.flatten() if inside is None else values[inside.to(values.device)]
        counted = chosen.numel() if computed is None else int(computed.sum())
        squares = float((chosen - chosen.sum() / max(counted, 1)).square().sum())
        deviation = math.sqrt(squares / max(chosen.numel() - 1, 1))
        scale = 50.0 / deviation if deviation > 0 else 1.0
    slow, fast = values.shape
    with replacing(path) as file:
        file.write(f"P5\n{fast} {slow}\n# pixels scaled by {scale:g}\n255\n".encode("ascii"))
        file.write((values * scale).clamp(0, 255).floor().to(torch.uint8).numpy().tobytes())


def read_pgm(path: str | Path) -> Tensor:
    """The bytes ``[slow, fast]`` of a binary PGM image, int32.

    Raises:
        ValueError: the file cannot be read or is no such image.
    """
    raw = _read(path)
    fields: list[bytes] = []
    start = 0
    for line in raw[:_PGM_HEADER].split(b"\n"):
        if len(fields) >= 4:
            break
        start += len(line) + 1
        fields += line.partition(b"#")[0].split()
    try:
        magic, fast, slow, largest = fields[0], *map(int, fields[1:4])
    except (IndexError, ValueError, TypeError):
        magic, fast, slow, largest = b"", 0, 0, 0
    if magic != b"P5" or not 0 < largest < 256 or len(raw) - start != fast * slow:
        raise ValueError(f"{path}: expected a binary PGM image of one byte per pixel, got other bytes")
    return torch.from_numpy(np.frombuffer(raw[start:], np.uint8).reshape(slow, fast).astype(np.int32))


SUFFIXES = {".cbf": CBF, ".edf": EDF, ".tif": TIFF, ".tiff": TIFF, ".h5": HDF5, ".hdf5": HDF5, ".nxs": HDF5}
"""What the names of images end in that are written in another format than the C program's."""
_LIBRARIES = {CBF: "fabio", EDF: "fabio", TIFF: "fabio", HDF5: "h5py"}


def check_output(path: str | Path, *, whole: bool) -> None:
    """Raise where :func:`write_field` could not write an image, of whole counts or not, under that name.

    Raises:
        ImportError: the library that its format needs is not installed.
        ValueError: CBF, which holds whole counts, for an image that has others.
    """
    kind = SUFFIXES.get(Path(path).suffix.lower())
    if kind is not None:
        library(_LIBRARIES[kind], f"a {kind} file")
    if kind == CBF and not whole:
        raise ValueError(f"{path}: expected another format than CBF, which holds whole counts, for an image of floats")


def write_field(
    path: str | Path,
    panels: Sequence[Tensor],
    settings: Mapping[str, Any] | None = None,
    good: Sequence[Tensor] = (),
) -> None:
    """Images ``[slow, fast]`` in the format that the name ends in: CBF, EDF, TIFF of one panel, HDF5 (NXmx) of several.

    Whole counts become int32, others float32. ``settings`` are those of
    :class:`sem.diffraction.files.field_image.FieldImage`, of which TIFF holds none.

    ``good``, bool of the panels' shapes, is False where a pixel is bad: HDF5 keeps it as ``pixel_mask``; elsewhere a
    bad pixel is written below 0, as it is or as -1, which CBF alone takes for a mark.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.cbf"
        >>> write_field(path, [torch.arange(6).view(2, 3)], {"pixel": 0.1, "distance": 80.0})
        >>> read_image(path).tolist(), read_panels(path).settings["distance"]
        ([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], 80.0)

    Raises:
        ImportError: the library that the format needs is not installed.
        OSError: the file could not be written.
        ValueError: no such format, several panels in one that holds one, CBF of what is not whole, counts of good
            pixels that do not fit in 32 bits, ``good`` of other shapes than the panels.
    """
    from sem.diffraction.files.nexus import write_nexus
    from sem.diffraction.files.rasters import write_raster

    kind = SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    arrays = [_array(panel) for panel in panels]
    masks = [_array(mask).astype(bool) for mask in good]
    if masks and [mask.shape for mask in masks] != [array.shape for array in arrays]:
        got = ", ".join(str(list(mask.shape)) for mask in masks)
        raise ValueError(f"good: expected the shapes of the {len(arrays)} panels, got {got}")
    if kind != HDF5:
        arrays = [marked(array, mask) for array, mask in zip(arrays, masks, strict=True)] if masks else arrays
    arrays = [_stored(path, array, masks[number] if masks else None) for number, array in enumerate(arrays)]
    if kind == HDF5:
        return write_nexus(path, arrays, settings or {}, masks)
    if len(arrays) != 1:
        raise ValueError(f"{path}: expected one panel, which {kind} holds, got {len(arrays)}")
    return write_raster(path, arrays[0], kind, settings or {})


def marked(array: np.ndarray, good: np.ndarray, value: int = BAD) -> np.ndarray:
    """Pixels ``[slow, fast]`` of which bad ones that are not below 0 became ``value``; unsigned ones become int64."""
    array = signed(array)
    return np.where(good | (array < 0), array, np.asarray(value, array.dtype))


def signed(array: np.ndarray) -> np.ndarray:
    """``array``, or int64 of bool and of unsigned numbers, of which those past its range become its largest."""
    if array.dtype.kind not in "bu":
        return array
    largest = np.iinfo(np.int64).max
    return (np.minimum(array, np.uint64(largest)) if array.dtype.itemsize == 8 else array).astype(np.int64)


def _stored(path: str | Path, array: np.ndarray, good: np.ndarray | None = None) -> np.ndarray:
    """Counts as int32, which all of the formats hold, other numbers as float32.

    What a bad pixel holds and int32 does not, such as the largest number of an unsigned one, becomes -1.
    """
    if array.dtype.kind not in "biu":
        return array.astype(np.float32)
    bounds, array = np.iinfo(np.int32), signed(array)
    if good is not None:
        array = np.where(good | ((array >= bounds.min) & (array <= bounds.max)), array, np.asarray(BAD, array.dtype))
    if array.size and (array.min() < bounds.min or array.max() > bounds.max):
        wanted = f"counts from {bounds.min} to {bounds.max}, which fit in 32 bits"
        raise ValueError(f"{path}: expected {wanted}, got {array.min()} to {array.max()}")
    return array.astype(np.int32)


def read_panels(path: str | Path, frame: int = 0) -> FieldImage:
    """Any image by its content, with all of its panels: CBF, EDF, TIFF, HDF5 (one exposure of it), SMV, PGM, ``.npy``;
    raw floats if it has no header.

    Raises:
        ImportError: the library that the format needs is not installed.
        ValueError: the file cannot be read, is none of them, or holds no such exposure.
    """
    from sem.diffraction.files.nexus import read_nexus
    from sem.diffraction.files.rasters import read_raster

    kind = kind_of(path)
    if kind in (CBF, EDF, TIFF):
        return read_raster(path, kind)
    if kind == HDF5:
        return read_nexus(path, frame)
    if kind in (MTZ, EXPERIMENTS):
        raise ValueError(f"{path}: expected an image, got a file of another kind ({kind})")
    if kind == NPY:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)  # which asks the file before it asks for memory
        except (ValueError, OSError, EOFError, OverflowError) as error:
            raise ValueError(f"{path}: expected an array of numpy's, {' '.join(str(error).split())}") from None
        if array.ndim != 2:
            raise ValueError(f"{path}: expected an array of two dimensions, got {list(array.shape)}")
        return FieldImage((array,))
    pixels = read_smv(path)[0] if kind == SMV else read_pgm(path) if kind == PGM else read_float(path)
    return FieldImage((pixels.numpy(),))


def masked_in(found: FieldImage, panel: int, kind: str) -> np.ndarray:
    """Which pixels of a panel a mask lets through, bool ``[slow, fast]``; ``kind`` is that of its file.

    An HDF5 file with a ``pixel_mask`` says it there, whatever it counted; any other image by its pixels above 0.
    """
    if kind == HDF5 and found.good:
        return found.good[panel].astype(bool)
    return found.panels[panel] > 0


def read_image(path: str | Path, panel: int | None = None) -> Tensor:
    """One panel of an image as :func:`read_panels` reads it, float64 ``[slow, fast]``.

    Raises:
        ImportError, ValueError: as :func:`read_panels`; several panels of which none is chosen.
    """
    return read_pixels(path, panel)[0]


def read_pixels(path: str | Path, panel: int | None = None) -> tuple[Tensor, Tensor]:
    """One panel of an image as :func:`read_image` gives it, and which pixels are good, bool ``[slow, fast]``.

    Good are all that the file does not call bad.

    Raises:
        ImportError, ValueError: as :func:`read_image`.
    """
    found = read_panels(path)
    image, good = found.pixels(found.panel(panel, path))
    return torch.from_numpy(image), torch.from_numpy(good)


def poisson(image: Tensor, seed: int | torch.Generator) -> Tensor:
    """Photon counts drawn from Poisson's distribution with the mean ``image``, int64; the same for the same seed.

    A generator, of the CPU, is drawn from as it stands, for one image after the other. NaN and negative pixels count 0.
    """
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    mean = torch.nan_to_num(image.detach().to("cpu", torch.float64), nan=0.0, posinf=1e15).clamp(0, 1e15)
    return torch.poisson(mean, generator=generator).to(torch.int64)


def _array(image: Tensor) -> np.ndarray:
    return image.detach().cpu().numpy()


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
