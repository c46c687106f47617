"""Images as CBF, EDF and TIFF through fabio, whose readers are shown only files that their sizes fit."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sem.diffraction.files.access import (
    LARGEST_IMAGE,
    beginning_of,
    content_of,
    failing_as,
    library,
    require_pixels,
    size_of,
)
from sem.diffraction.files.field_image import FieldImage
from sem.diffraction.files.kinds import CBF, EDF, TIFF
from sem.files import replacing

_SECTION, _STARTER = b"--CIF-BINARY-FORMAT-SECTION--", b"\x0c\x1a\x04\xd5"
_CBF_TYPES = {
    f"{sign} {bits}-bit integer": f"{letter}{bits // 8}"
    for sign, letter in (("signed", "i"), ("unsigned", "u"))
    for bits in (8, 16, 32, 64)
}
_HEADER = 1 << 20  # bytes in which a header ends
_MOST_PANELS = 4096
_NUMBER = r"([-+]?\d[\d.]*(?:[eE][-+]?\d+)?)"
_MINI = {
    "pixel": (rf"Pixel_size\s+{_NUMBER}\s*m\s*x", 1e3),
    "distance": (rf"Detector_distance\s+{_NUMBER}\s*m\b", 1e3),
    "wavelength": (rf"Wavelength\s+{_NUMBER}\s*A", 1.0),
    "phi": (rf"Start_angle\s+{_NUMBER}", 1.0),
    "oscillation": (rf"Angle_increment\s+{_NUMBER}", 1.0),
}
"""The lines of a miniCBF's header that say something of the experiment, and the factor to our units."""
_BEAM = re.compile(rf"Beam_xy\s+\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\s*pixels")


def read_raster(path: str | Path, kind: str) -> FieldImage:
    """The image of a CBF (each binary section a panel), EDF or TIFF file.

    Raises:
        ImportError: fabio is not installed.
        ValueError: the file is damaged, or has an image that its bytes cannot hold or that is too large.
    """
    return {CBF: _read_cbf, EDF: _read_edf, TIFF: _read_tiff}[kind](Path(path))


def write_raster(path: str | Path, image: np.ndarray, kind: str, settings: Mapping[str, Any]) -> None:
    """An image ``[slow, fast]``: whole counts as int32 in CBF, with a miniCBF's header; float32 too in EDF and TIFF.

    Raises:
        ImportError: fabio is not installed.
        OSError: the file could not be written.
        ValueError: CBF is to hold what is not whole.
    """
    fabio = library("fabio", f"a {kind} file")
    if kind == CBF and image.dtype.kind not in "iu":
        raise ValueError(f"{path}: expected whole counts, which CBF holds, got {image.dtype}")
    array = np.ascontiguousarray(image, np.int32 if image.dtype.kind in "iu" else np.float32)
    with replacing(path) as temporary:
        if kind == CBF:
            header = {
                "_array_data.header_convention": "PILATUS_1.2",
                "_array_data.header_contents": "\n".join(f"# {line}" for line in mini_header(settings)),
            }
            written = fabio.cbfimage.CbfImage(data=array, header=header)
        elif kind == EDF:
            written = fabio.edfimage.EdfImage(data=array, header=_edf_header(settings))
        else:
            written = fabio.tifimage.TifImage(data=array, header={})
        written.write(temporary.name)


def mini_header(settings: Mapping[str, Any]) -> list[str]:
    """The lines of a miniCBF's header, without their marks, that say what ``settings`` say."""
    lines = ["Detector: simulated by sem.diffraction"]
    if "pixel" in settings:
        side = settings["pixel"] / 1e3
        lines.append(f"Pixel_size {side:.12g} m x {side:.12g} m")
        if "spot" in settings:
            fast, slow = (part / settings["pixel"] for part in settings["spot"])
            lines.append(f"Beam_xy ({fast:.12g}, {slow:.12g}) pixels")
    shown = {
        "distance": ("Detector_distance {:.12g} m", 1e-3),
        "wavelength": ("Wavelength {:.12g} A", 1.0),
        "phi": ("Start_angle {:.12g} deg.", 1.0),
        "oscillation": ("Angle_increment {:.12g} deg.", 1.0),
    }
    return lines + [text.format(settings[name] * factor) for name, (text, factor) in shown.items() if name in settings]


def _read_cbf(path: Path) -> FieldImage:
    raw = content_of(path)
    panels = tuple(_sections(path, raw))
    if not panels:
        raise ValueError(f"{path}: expected a CBF file with an image, got one without a binary section")
    text = raw[: min(raw.index(_SECTION), _HEADER)].decode("latin-1")
    settings: dict[str, Any] = {}
    for name, (pattern, factor) in _MINI.items():
        found = re.search(pattern, text)
        if found is not None:
            settings[name] = _number(path, found[1]) * factor
    beam = _BEAM.search(text)
    if beam is not None and "pixel" in settings:
        settings["spot"] = tuple(_number(path, part) * settings["pixel"] for part in beam.groups())
    # a count below 0 marks a gap or a pixel that is none
    return FieldImage(panels, tuple(panel >= 0 for panel in panels), settings)


def _sections(path: Path, raw: bytes) -> Iterator[np.ndarray]:
    """The image of each binary section."""
    place, pixels, number = raw.find(_SECTION), 0, 0
    while place >= 0 and raw[place + len(_SECTION) : place + len(_SECTION) + 2] != b"--":
        start = raw.find(_STARTER, place, place + _HEADER)
        if start < 0:
            raise ValueError(f"{path}: expected the mark that begins binary data, found none")
        header = raw[place:start].decode("latin-1")
        lines = header.splitlines()
        fields = _fields(lines, "=") | _fields(lines, ":")  # conversions="..." alone has the first
        image, size = _section(path, raw, start + len(_STARTER), fields, LARGEST_IMAGE - pixels)
        yield image
        pixels, number = pixels + image.size, number + 1
        if number > _MOST_PANELS:
            raise ValueError(f"{path}: expected at most {_MOST_PANELS} panels")
        end = raw.find(_SECTION, start + len(_STARTER) + size)
        place = raw.find(_SECTION, end + len(_SECTION) + 2) if end >= 0 else -1


def _fields(lines: Iterable[str], mark: str) -> dict[str, str]:
    """Names, in small letters, and values of lines that have ``mark`` between the two."""
    pairs = (line.partition(mark) for line in lines)
    return {name.strip().lower(): value.strip().strip('";') for name, found, value in pairs if found}


def _section(path: Path, raw: bytes, start: int, fields: Mapping[str, str], room: int) -> tuple[np.ndarray, int]:
    """The image of one binary section, and how many bytes it takes."""
    names = ("x-binary-size", "x-binary-size-fastest-dimension", "x-binary-size-second-dimension")
    try:
        size, fast, slow = (int(fields[name]) for name in names)
        third = int(fields.get("x-binary-size-third-dimension", "1") or 1)
        elements = int(fields.get("x-binary-number-of-elements", fast * slow))
    except (KeyError, ValueError):
        raise ValueError(f"{path}: expected whole numbers for the sizes of its binary data, got others") from None
    number = require_pixels(path, slow, fast)
    if third != 1 or elements != number:
        raise ValueError(f"{path}: expected {fast} x {slow} pixels, got {elements} elements in {third} slices")
    data = raw[start : start + max(size, 0)]
    conversion = fields.get("conversions", "x-CBF_NONE").lower()
    element = fields.get("x-binary-element-type", "signed 32-bit integer").lower()
    if element not in _CBF_TYPES:
        raise ValueError(f"{path}: expected whole numbers, got elements of type {element!r}")
    dtype = np.dtype(f"<{_CBF_TYPES[element]}")
    least = number * (dtype.itemsize if conversion == "x-cbf_none" else 1)
    if len(data) != size or size < least or number > room:
        wanted = f"{number} pixels in {size} bytes as its header says"
        raise ValueError(f"{path}: expected {wanted}, got {len(data)} bytes")
    if "content-md5" in fields and fields["content-md5"] != _md5(data):
        raise ValueError(f"{path}: expected pixels with the checksum that its header gives, got others")
    if conversion == "x-cbf_none":
        return np.frombuffer(data, dtype, number).reshape(slow, fast), size
    if conversion != "x-cbf_byte_offset":
        raise ValueError(f"{path}: expected pixels compressed as x-CBF_BYTE_OFFSET, got {conversion}")
    return _byte_offset(path, data, number, dtype).reshape(slow, fast), size


def _byte_offset(path: Path, data: bytes, number: int, dtype: np.dtype) -> np.ndarray:
    """Exactly ``number`` pixels. Zeros behind the data keep the decoder inside of it and tell how many there were."""
    decode = library("fabio.compression", "a CBF file").decByteOffset
    spare = 16
    with failing_as(path, f"{number} pixels compressed by byte offsets"):
        wide = np.asarray(decode(data + bytes(spare), number + spare + 1, dtype="int64"))
    if len(wide) != number + spare:
        got = "more" if len(wide) > number + spare else str(max(len(wide) - spare, 0))
        raise ValueError(f"{path}: expected {number} pixels, got {got} in its binary data")
    values = wide[:number]
    bounds = np.iinfo(dtype)
    if bool((values < bounds.min).any()) or (dtype.itemsize < 8 and bool((values > bounds.max).any())):
        raise ValueError(f"{path}: expected pixels of type {dtype.name}, got values outside of it")
    return values.astype(dtype.newbyteorder("="))


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")


def _read_edf(path: Path) -> FieldImage:
    fabio = library("fabio", "an EDF file")
    begin = beginning_of(path, _HEADER)
    text, closed, _ = begin.partition(b"}")
    entries = _fields(text.decode("latin-1").lstrip("{ \r\n").split(";"), "=")
    try:
        fast, slow = int(entries["dim_1"]), int(entries.get("dim_2", "1"))
    except (KeyError, ValueError):
        raise ValueError(f"{path}: expected whole numbers Dim_1 and Dim_2 in the header, got others") from None
    number = require_pixels(path, slow, fast)
    if entries.get("compression", "none").lower() not in ("none", "no", ""):
        raise ValueError(f"{path}: expected EDF without compression, got {entries['compression']}")
    least, room = _edf_bytes(path, entries) * number, size_of(path) - len(text) - 1
    if not closed or room < least:
        raise ValueError(f"{path}: expected {fast} x {slow} pixels of {least} bytes, got {max(room, 0)} bytes")
    with failing_as(path, "an EDF file that is complete"):
        image = fabio.edfimage.EdfImage().read(str(path))
        array = np.asarray(image.data)
    if array.shape != (slow, fast):
        raise ValueError(f"{path}: expected {fast} x {slow} pixels, got {list(array.shape)}")
    return FieldImage((_real(path, array),), settings=_edf_settings(path, entries))


def _edf_bytes(path: Path, entries: Mapping[str, str]) -> int:
    """Bytes of a pixel."""
    kind = entries.get("datatype", "").lower()
    sizes = {"byte": 1, "short": 2, "integer": 4, "long": 4, "float": 4, "double": 8, "64": 8}
    for word, size in (("64", 8), *sizes.items()):
        if word in kind:
            return size
    raise ValueError(f"{path}: expected a DataType of numbers in the header, got {kind or 'none'!r}")


_EDF_KEYS = {"pixel": ("PSize_1", 1e3), "distance": ("SampleDistance", 1e3), "wavelength": ("WaveLength", 1e10)}
"""ESRF's keys, in metres, and the factor to our units; ``Center_1`` and ``Center_2`` are in pixels."""


def _edf_settings(path: Path, entries: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: _number(path, entries[key.lower()].partition(" ")[0]) * factor
        for name, (key, factor) in _EDF_KEYS.items()
        if key.lower() in entries
    }
    if "pixel" in found and {"center_1", "center_2"} <= set(entries):
        found["spot"] = tuple(_number(path, entries[f"center_{axis}"]) * found["pixel"] for axis in (1, 2))
    return found


def _edf_header(settings: Mapping[str, Any]) -> dict[str, str]:
    header = {key: f"{settings[name] / factor:.12g}" for name, (key, factor) in _EDF_KEYS.items() if name in settings}
    if "pixel" in settings:
        header["PSize_2"] = header["PSize_1"]
        for axis, part in enumerate(settings.get("spot", ()), start=1):
            header[f"Center_{axis}"] = f"{part / settings['pixel']:.12g}"
    return header


def _read_tiff(path: Path) -> FieldImage:
    fabio = library("fabio", "a TIFF file")
    slow, fast = _tiff_shape(path)
    with failing_as(path, "a TIFF file that is complete"):
        image = fabio.tifimage.TifImage().read(str(path))
        array = np.asarray(image.data)
        image.close()
    if array.shape != (slow, fast):
        raise ValueError(f"{path}: expected {fast} x {slow} pixels of one number, got {list(array.shape)}")
    return FieldImage((_real(path, array),))


def _tiff_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of the one page of a TIFF file that its bytes can hold."""
    begin, size = beginning_of(path, 8), size_of(path)
    order = "<" if begin[:2] == b"II" else ">"
    with failing_as(path, "a TIFF file that is complete"), open(path, "rb") as file:
        (place,) = struct.unpack(f"{order}I", begin[4:8])
        file.seek(place)
        (entries,) = struct.unpack(f"{order}H", file.read(2))
        tags: dict[int, tuple[int, int]] = {}
        for _ in range(entries):
            tag, kind, count, value = struct.unpack(f"{order}HHI4s", file.read(12))
            number = struct.unpack(f"{order}H2x" if kind == 3 else f"{order}I", value)[0]
            tags[tag] = (count, number)
        (following,) = struct.unpack(f"{order}I", file.read(4))
    if following:
        raise ValueError(f"{path}: expected a TIFF file of one page, got several")
    if 256 not in tags or 257 not in tags:
        raise ValueError(f"{path}: expected a TIFF file that says its width and length, got none")
    fast, slow = tags[256][1], tags[257][1]
    number = require_pixels(path, slow, fast)
    bits = tags.get(258, (1, 1))
    compressed = tags.get(259, (1, 1))[1] != 1
    if bits[0] != 1 or tags.get(277, (1, 1))[1] != 1:
        raise ValueError(f"{path}: expected one number per pixel, got {bits[0]}")
    if any(count * 2 > size for count, _ in tags.values()) or (not compressed and number * bits[1] // 8 > size):
        raise ValueError(f"{path}: expected {fast} x {slow} pixels of {bits[1]} bits, got {size} bytes")
    return slow, fast


def _real(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected pixels that are numbers, got {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="))


def _number(path: Path, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}: expected a number in the header, got {text!r}")
    return number
