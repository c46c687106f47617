"""Images and masks in HDF5 as NeXus keeps them (NXmx): one or several panels, one exposure at a time."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sem.diffraction.files.access import library, require_pixels
from sem.diffraction.files.field_image import FieldImage
from sem.hdf5 import FAILURES, Source, name_of, one_line, put, reading, writing

_HEAP = b"GCOL\x01\0\0\0"
_SCANNED = 1 << 27  # bytes at either end of a file in which texts are looked at
_SMALLEST = 96  # bytes of an HDF5 file
_BUILT_IN, _PACKED = (1, 2, 3), 1100
"""Filters of HDF5's own (deflate, shuffle, checksums), and how many times they can make less of numbers."""
_LARGEST_CHUNK = 1 << 30  # bytes that a block of a dataset may unpack to
_FEW = 8  # numbers that say where a module is
_MOST_LINKS, _MOST_PANELS, _MOST_FILES = 16, 4096, 1024
_LENGTHS = {"m": 1e3, "metre": 1e3, "mm": 1.0, "um": 1e-3, "µm": 1e-3}
_WAVELENGTHS = {"angstrom": 1.0, "a": 1.0, "å": 1.0, "nm": 10.0, "m": 1e10}
_ANGLES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "rad": 180 / math.pi}


class Guarded(Source):
    """An HDF5 file whose links lead to files of its own folder alone."""

    def __init__(self, path: Path, root: Any, files: contextlib.ExitStack) -> None:
        super().__init__(path, root)
        self._files = files
        self._opened: dict[Path, Any] = {}

    def find(self, name: str) -> Any:
        """As :meth:`sem.hdf5.Source.find`, every link on the way looked at first.

        Raises:
            ValueError: a link leads outside of the file's folder, nowhere, or in a circle; damage.
        """
        return self._walk(self.root, name, _MOST_LINKS)

    def _walk(self, group: Any, name: str, links: int) -> Any:
        h5py = library("h5py", "an HDF5 file")
        found, walked = group.file if name.startswith("/") else group, ""
        for part in filter(None, name.split("/")):
            walked = f"{walked}/{part}".lstrip("/")
            try:
                link = found.get(part, getlink=True) if hasattr(found, "keys") else None
                if link is not None and not isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):
                    found = found[part]
                    continue
            except FAILURES as error:
                raise ValueError(f"{self.path}: {walked}: damaged ({one_line(error)})") from None
            if link is None:
                return None
            if links < 1:
                raise ValueError(f"{self.path}: {walked}: expected a dataset, got links without an end")
            external = isinstance(link, h5py.ExternalLink)
            start = self._other(walked, link.filename) if external else found
            found = self._walk(start, link.path, links - 1)
            if found is None:
                target = f"{link.filename}:{link.path}" if external else link.path
                raise ValueError(f"{self.path}: {walked}: links to {target}, which is not there")
        return found

    def _other(self, walked: str, name: str) -> Any:
        """The root of another file of the folder."""
        target = beside(self.path, name)
        if target is None:
            raise ValueError(f"{self.path}: {walked}: expected a link to a file of its folder, got {name}")
        if target not in self._opened:
            if len(self._opened) == _MOST_FILES:
                raise ValueError(f"{self.path}: expected links to at most {_MOST_FILES} files")
            check_heaps(target)
            self._opened[target] = self._files.enter_context(reading(target)).root
        return self._opened[target]

    def pixels(self, dataset: Any, part: Any = ()) -> np.ndarray:
        """Numbers of a dataset, whose blocks and places of storage are looked at first.

        Raises:
            ValueError: it lies in other folders, is no array of numbers, or its blocks are too large.
        """
        name = name_of(dataset)
        self._require_near(dataset, _MOST_LINKS)
        try:
            chunk = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
        except FAILURES as error:
            raise ValueError(f"{self.path}: {name}: damaged ({one_line(error)})") from None
        if chunk > _LARGEST_CHUNK or dataset.dtype.kind not in "biuf":
            got = f"{dataset.dtype} in blocks of {chunk} bytes"
            raise ValueError(f"{self.path}: {name}: expected numbers in blocks up to {_LARGEST_CHUNK} bytes, got {got}")
        self._require_stored(dataset, name, len(part))
        try:
            return self.array(dataset, part)
        except ValueError as error:
            if "filter" not in str(error).lower():
                raise
            raise ValueError(f"{error}; its compression may need hdf5plugin: pip install hdf5plugin") from None

    def _require_near(self, dataset: Any, depth: int) -> None:
        """Raise where numbers of a dataset, or of one that it is put together of, lie in other folders."""
        name = name_of(dataset)
        try:
            raw = [entry[0] for entry in dataset.external or ()]
            parts = dataset.virtual_sources() if dataset.is_virtual else []
        except FAILURES as error:
            raise ValueError(f"{self.path}: {name}: damaged ({one_line(error)})") from None
        if depth < 1:
            raise ValueError(f"{self.path}: {name}: expected numbers, got datasets without an end")
        for said in [*raw, *(part.file_name for part in parts)]:
            where = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            if where != "." and beside(self.path, where) is None:
                raise ValueError(f"{self.path}: {name}: expected data in files of its folder, got {where}")
        for part in parts:
            root = dataset.file if part.file_name == "." else self._other(name, part.file_name)
            found = self._walk(root, part.dset_name, _MOST_LINKS)
            if hasattr(found, "is_virtual"):
                self._require_near(found, depth - 1)

    def _require_stored(self, dataset: Any, name: str, chosen: int) -> None:
        """Numbers that deflate, or nothing, packed cannot be many times those that lie in the file.

        ``chosen``: along how many dimensions one place is read.
        """
        try:
            plist = dataset.id.get_create_plist()
            known = all(plist.get_filter(place)[0] in _BUILT_IN for place in range(plist.get_nfilters()))
            held, stored = math.prod(dataset.shape[chosen:]) * dataset.dtype.itemsize, dataset.id.get_storage_size()
            elsewhere = dataset.is_virtual or bool(dataset.external)
        except FAILURES as error:
            raise ValueError(f"{self.path}: {name}: damaged ({one_line(error)})") from None
        if known and not elsewhere and held > _PACKED * stored + 1024:
            raise ValueError(f"{self.path}: {name}: expected {held} bytes of numbers, got {stored} in the file")


def check_heaps(path: Path) -> None:
    """Raise for a damaged collection of texts, at which HDF5 itself would never end.

    Looked for in the first and the last part of the file, where they are.

    Raises:
        ValueError: there is one.
    """
    size = path.stat().st_size
    if size < _SMALLEST:
        raise ValueError(f"{path}: expected a complete HDF5 file, got {size} bytes")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        for begin, end in ((0, _SCANNED), (max(size - _SCANNED, _SCANNED), size)):
            place = raw.find(_HEAP, begin, end)
            while place >= 0:
                _check_heap(path, raw, place)
                place = raw.find(_HEAP, place + 1, end)


def _check_heap(path: Path, raw: mmap.mmap, place: int) -> None:
    """Walk from object to object: each says how far the next one is."""
    length = int.from_bytes(raw[place + 8 : place + 16], "little")
    end, at = min(place + length, len(raw)), place + 16
    while at + 16 <= end:
        number, size = int.from_bytes(raw[at : at + 2], "little"), int.from_bytes(raw[at + 8 : at + 16], "little")
        step = 16 + (size + 7) // 8 * 8 if number else size
        if step < 16 or at + step > place + length:
            raise ValueError(f"{path}: expected a complete HDF5 file, got one whose texts are damaged")
        at += step


def beside(path: Path, name: str) -> Path | None:
    """The file ``name`` as ``path`` names it, None if it does not lie in the folder of ``path`` or below."""
    folder = path.resolve().parent
    target = (folder / name).resolve()
    return target if target.is_relative_to(folder) and target.is_file() else None


def read_nexus(path: str | Path, frame: int = 0) -> FieldImage:
    """One exposure of an NXmx file.

    Panels are the modules of the detector (``NXdetector_module``) where it has several, or the second of four
    dimensions. Pixels that ``pixel_mask`` marks are not good.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the file is damaged, has no image, no such exposure, panels outside of it, too many pixels, or
            leads to files of other folders.
    """
    path = Path(path)
    library("h5py", "an HDF5 file")
    check_heaps(path)
    with contextlib.suppress(ImportError):
        import hdf5plugin  # type: ignore[import-not-found,unused-ignore]  # noqa: F401 - registers its filters
    with reading(path) as plain, contextlib.ExitStack() as files:
        source = Guarded(path, plain.root, files)
        entry = _group(source, "", "NXentry", "entry")
        instrument = _group(source, entry, "NXinstrument", f"{entry}/instrument")
        detector = _group(source, instrument, "NXdetector", f"{instrument}/detector")
        image, frames = _image(source, entry, detector, frame)
        mask = _mask(source, detector, image.shape)
        slices = _modules(source, detector, image.shape)
        if image.ndim == 3:
            panels = tuple(image)
            good = () if mask is None else tuple(np.broadcast_to(mask, image.shape))
        else:
            panels = tuple(image[part] for part in slices)
            good = () if mask is None else tuple(mask[part] for part in slices)
        return FieldImage(panels, good, _settings(source, entry, instrument, detector), frames)


def write_nexus(
    path: str | Path, panels: Sequence[np.ndarray], settings: Mapping[str, Any], good: Sequence[np.ndarray] = ()
) -> None:
    """One exposure as NXmx: ``entry/data/data`` ``[1, slow, fast]``, or ``[1, panels, slow, fast]``, compressed.

    ``good``, bool of the panels' shapes, becomes the detector's ``pixel_mask``: 1 where it is False.

    Raises:
        ImportError: h5py is not installed.
        OSError: the file could not be written.
        ValueError: panels of different shapes or dtypes.
    """
    if len({(panel.shape, panel.dtype) for panel in panels}) != 1:
        raise ValueError(f"{path}: expected panels of one shape and dtype, got {len(panels)} of several or none")
    stack = np.stack([np.ascontiguousarray(panel) for panel in panels])
    with writing(Path(path)) as file:
        file.attrs["default"] = "entry"
        entry = _made(file, "entry", "NXentry")
        entry["definition"] = "NXmx"
        _made(entry, "data", "NXdata").attrs["signal"] = "data"
        put(file, "entry/data/data", stack if len(panels) == 1 else stack[None])
        instrument = _made(entry, "instrument", "NXinstrument")
        beam, detector = _made(instrument, "beam", "NXbeam"), _made(instrument, "detector", "NXdetector")
        detector["data"] = file["entry/data/data"]
        if good:
            mask = (~np.stack(good)).astype(np.uint32)
            put(file, "entry/instrument/detector/pixel_mask", mask[0] if len(panels) == 1 else mask)
        if "wavelength" in settings:
            _put_number(beam, "incident_wavelength", settings["wavelength"], "angstrom")
        for name, factor in (("distance", 1e-3), ("pixel", 1e-3)):
            for key in ("x_pixel_size", "y_pixel_size") if name == "pixel" else ("distance",):
                if name in settings:
                    _put_number(detector, key, settings[name] * factor, "m")
        if {"spot", "pixel"} <= set(settings):
            for key, part in zip(("beam_center_x", "beam_center_y"), settings["spot"], strict=True):
                _put_number(detector, key, part / settings["pixel"], "pixel")
        sample = _made(entry, "sample", "NXsample")
        goniometer = _made(sample, "goniometer", "NXtransformations")
        for key, name in (("omega", "phi"), ("omega_range_average", "oscillation")):
            if name in settings:
                _put_number(goniometer, key, settings[name], "deg")


def _made(parent: Any, name: str, kind: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _put_number(group: Any, name: str, value: float, units: str) -> None:
    group[name] = float(value)
    group[name].attrs["units"] = units


def _group(source: Guarded, parent: str, kind: str, usual: str) -> str:
    """The path of the one group of ``kind`` in ``parent``, or the usual one."""
    for name in source.children(parent)[:1000]:
        path = f"{parent}/{name}".lstrip("/")
        if _class_of(source, path) == kind:
            return path
    return usual


def _class_of(source: Guarded, path: str) -> str:
    """NeXus' name of what a group is; none of a link that cannot be followed, which is an error where it is needed."""
    try:
        found = source.find(path)
        said = None if found is None else source.attribute(found, "NX_class")
    except ValueError:
        return ""
    return _text(said)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def _image(source: Guarded, entry: str, detector: str, frame: int) -> tuple[np.ndarray, int]:
    """One exposure, ``[slow, fast]`` or ``[panels, slow, fast]``, and how many there are."""
    names = [f"{entry}/data/data", f"{detector}/data"]
    names += sorted(f"{entry}/data/{name}" for name in source.children(f"{entry}/data") if name.startswith("data_"))
    parts = [source.dataset(name) for name in names[:2] if source.find(name) is not None][:1]
    parts = parts or [source.needed(name) for name in names[2 : 2 + _MOST_FILES]]
    if not parts:
        raise ValueError(f"{source.path}: expected an image at {names[0]}, found none")
    number = 0
    for dataset in parts:
        shape = tuple(dataset.shape or ())
        if len(shape) not in (2, 3, 4):
            raise ValueError(f"{source.path}: {name_of(dataset)}: expected an image, got shape {list(shape)}")
        require_pixels(source.path, *shape[-2:], *(shape[1:2] if len(shape) == 4 else ()))
        if len(shape) == 4 and shape[1] > _MOST_PANELS:
            raise ValueError(f"{source.path}: expected at most {_MOST_PANELS} panels, got {shape[1]}")
        held = 1 if len(shape) == 2 else shape[0]
        if 0 <= frame - number < held:
            found = source.pixels(dataset, () if len(shape) == 2 else (frame - number,))
            held_before = number + held
            return found, held_before + sum(part.shape[0] for part in parts[parts.index(dataset) + 1 :])
        number += held
    raise ValueError(f"{source.path}: expected an exposure from 0 to {number - 1}, got {frame}")


def _mask(source: Guarded, detector: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Which pixels are good; the file's mask marks those that are not."""
    dataset = source.dataset(f"{detector}/pixel_mask", f"{detector}/detectorSpecific/pixel_mask")
    if dataset is None:
        return None
    if tuple(dataset.shape or ()) not in (shape, shape[-2:]):
        got = list(dataset.shape or ())
        raise ValueError(f"{source.path}: {name_of(dataset)}: expected shape {list(shape)} as the image, got {got}")
    return source.pixels(dataset) == 0


def _modules(source: Guarded, detector: str, shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """The part of the image that each module covers; all of it where there is one module or none."""
    parts = []
    for name in source.children(detector)[:_MOST_PANELS]:
        module = f"{detector}/{name}"
        if _class_of(source, module) != "NXdetector_module":
            continue
        first, extent = (_pair(source, f"{module}/{key}") for key in ("data_origin", "data_size"))
        ends = [start + length for start, length in zip(first, extent, strict=True)]
        if min(first) < 0 or min(extent) < 1 or any(end > side for end, side in zip(ends, shape[-2:], strict=True)):
            rows = f"{first[0]} to {ends[0]}, {first[1]} to {ends[1]}"
            raise ValueError(f"{source.path}: {module}: expected a module inside {list(shape[-2:])}, got {rows}")
        parts.append((slice(first[0], ends[0]), slice(first[1], ends[1])))
    return parts if len(parts) > 1 else [(slice(None), slice(None))]


def _pair(source: Guarded, path: str) -> list[int]:
    """The last two of a few whole numbers: along slow and fast."""
    dataset = source.needed(path)
    if not 2 <= math.prod(dataset.shape or ()) <= _FEW or dataset.dtype.kind not in "iu":
        got = f"{dataset.dtype} {list(dataset.shape or ())}"
        raise ValueError(f"{source.path}: {path}: expected two or three whole numbers, got {got}")
    return [int(part) for part in source.pixels(dataset).ravel()[-2:]]


def _settings(source: Guarded, entry: str, instrument: str, detector: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    beam = _group(source, instrument, "NXbeam", f"{instrument}/beam")
    sample = _group(source, entry, "NXsample", f"{entry}/sample")
    wanted = {
        "pixel": ([f"{detector}/x_pixel_size"], _LENGTHS, "m"),
        "distance": ([f"{detector}/distance", f"{detector}/detector_distance"], _LENGTHS, "m"),
        "wavelength": (
            [f"{beam}/incident_wavelength", f"{sample}/beam/incident_wavelength"],
            _WAVELENGTHS,
            "angstrom",
        ),
        "phi": ([f"{sample}/goniometer/omega", f"{sample}/transformations/omega"], _ANGLES, "deg"),
        "oscillation": ([f"{sample}/goniometer/omega_range_average"], _ANGLES, "deg"),
    }
    for name, (places, units, usual) in wanted.items():
        for value in _first_numbers(source, places, units, usual):
            found[name] = value
    if "pixel" in found:
        center = [
            value
            for key in ("beam_center_x", "beam_center_y")
            for value in _first_numbers(source, [f"{detector}/{key}"], {"pixel": 1.0, "pixels": 1.0}, "pixel")
        ]
        if len(center) == 2:
            found["spot"] = tuple(part * found["pixel"] for part in center)
    return found


def _first_numbers(source: Guarded, places: Sequence[str], units: Mapping[str, float], usual: str) -> Iterator[float]:
    """The first number of the first dataset that is there, in our unit; none if there is none."""
    dataset = source.dataset(*places)
    if dataset is None:
        return
    name = name_of(dataset)
    said = _text(source.attribute(dataset, "units"))
    unit = (said or usual).strip().lower()
    if unit not in units:
        raise ValueError(f"{source.path}: {name}: expected units {', '.join(units)}, got {said}")
    shape = tuple(dataset.shape or ())
    values = source.pixels(dataset, (0,) * len(shape) if 0 not in shape else ()).ravel()
    if not values.size or not np.isfinite(values[0]):
        raise ValueError(f"{source.path}: {name}: expected a finite number, got none")
    yield float(values[0]) * units[unit]
