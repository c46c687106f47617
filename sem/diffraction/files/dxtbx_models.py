"""The models of a dxtbx experiment list as numbers: beam, panels, goniometer, scan and crystal, read and written.

A model is the mapping that JSON gives; what is not named here stays in it as it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sem.diffraction.files.access import require_pixels

Model = dict[str, Any]
Frame = tuple[np.ndarray, np.ndarray]
"""Columns fast, slow, normal ``[3, 3]`` of a group of panels in the laboratory, and its origin ``[3]`` in mm."""

UNMOVED = 1e-10
"""Difference up to which a number counts as the one that the file has."""
_DEEPEST, _MOST_PANELS, _MOST_IMAGES = 32, 4096, 1 << 20
_IDENTITY = (np.eye(3), np.zeros(3))
AT_SCAN_POINTS = "_at_scan_points"


@dataclass(frozen=True)
class BeamNumbers:
    """``direction`` ``[3]`` from the sample to the source, ``wavelength`` in Å, ``normal`` ``[3]`` of the plane of
    polarisation, and the ``fraction`` of the intensity in it."""

    direction: np.ndarray
    wavelength: float
    normal: np.ndarray
    fraction: float


@dataclass(frozen=True)
class Panel:
    """A panel in the laboratory: unit axes ``[3]``, the corner of its first pixel and a pixel's side in mm."""

    name: str
    fast: np.ndarray
    slow: np.ndarray
    origin: np.ndarray
    pixels: tuple[int, int]
    """Along (fast, slow)."""
    pixel_size: float
    thickness: float = 0.0
    """Of the sensor, mm."""
    absorption: float = 0.0
    """Of the sensor, 1/mm."""


@dataclass(frozen=True)
class Goniometer:
    """A crystal that lies as ``A`` is at ``setting R(axis, phi) fixed A`` ``[3, 3]`` in the laboratory."""

    axis: np.ndarray
    fixed: np.ndarray
    setting: np.ndarray


@dataclass(frozen=True)
class Scan:
    """Images ``first`` to ``last``, the first of which starts at ``start`` degrees, each of ``width`` degrees."""

    first: int
    last: int
    start: float
    width: float


class Reader:
    """Numbers of a model, with sentences for what is none."""

    def __init__(self, path: object, where: str, model: Any) -> None:
        self.where = f"{path}: {where}"
        if not isinstance(model, dict):
            raise ValueError(f"{self.where}: expected names and values, got {_shown(model)}")
        self.model: Model = model

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.model.get(name, default)
        number = _number(value)
        if number is None:
            raise ValueError(f"{self.where}: expected a finite number for {name}, got {_shown(value)}")
        return number

    def vector(self, name: str, size: int, default: Any = None) -> np.ndarray:
        """``size`` finite numbers."""
        value = self.model.get(name, default)
        return self._vector(name, value, size)

    def unit(self, name: str, default: Any = None) -> np.ndarray:
        """Three numbers, not all 0, divided by their length."""
        return self.direction(name, self.model.get(name, default))

    def direction(self, name: str, value: Any) -> np.ndarray:
        """``value`` as three numbers, not all 0, divided by their length."""
        found = self._vector(name, value, 3)
        length = float(np.linalg.norm(found))
        if not 1e-9 < length < 1e9:
            raise ValueError(f"{self.where}: expected a direction for {name}, got {_shown(value)}")
        return found if abs(length - 1) < 1e-15 else found / length

    def matrix(self, name: str) -> np.ndarray:
        """A rotation ``[3, 3]``, the identity if there is none."""
        found = self.vector(name, 9, [1, 0, 0, 0, 1, 0, 0, 0, 1]).reshape(3, 3)
        if float(np.abs(found @ found.T - np.eye(3)).max()) > 1e-3 or np.linalg.det(found) < 0:
            raise ValueError(f"{self.where}: expected a rotation for {name}, got {_shown(self.model.get(name))}")
        return found

    def whole(self, name: str, size: int) -> list[int]:
        """``size`` whole numbers."""
        found = self.vector(name, size)
        if bool((np.abs(found) > 2**31).any()) or bool((np.rint(found) != found).any()):
            raise ValueError(f"{self.where}: expected whole numbers for {name}, got {_shown(self.model[name])}")
        return [int(value) for value in found]

    def rows(self, name: str, most: int) -> list[Any]:
        """A list of at most ``most`` values."""
        value = self.model.get(name)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise ValueError(f"{self.where}: expected a list of 1 to {most} for {name}, got {_shown(value)}")
        return value

    def _vector(self, name: str, value: Any, size: int) -> np.ndarray:
        numbers = [_number(part) for part in value] if isinstance(value, list) and len(value) == size else [None]
        if any(number is None for number in numbers):
            raise ValueError(f"{self.where}: expected {size} finite numbers for {name}, got {_shown(value)}")
        return np.array(numbers, np.float64)


def read_beam(path: object, model: Any) -> BeamNumbers:
    """The numbers of a beam of one wavelength."""
    reader = Reader(path, "beam", model)
    if "wavelength" not in model:
        raise ValueError(f"{reader.where}: expected a beam of one wavelength, got {_shown(model.get('__id__'))}")
    direction, normal = reader.unit("direction"), reader.unit("polarization_normal", [0, 1, 0])
    wavelength, fraction = reader.number("wavelength"), reader.number("polarization_fraction", 0.999)
    if wavelength <= 0:
        raise ValueError(f"{reader.where}: expected a wavelength > 0, got {wavelength:g}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"{reader.where}: expected a polarization_fraction from 0 to 1, got {fraction:g}")
    if float(np.linalg.norm(np.cross(normal, direction))) < 1e-6:
        raise ValueError(f"{reader.where}: expected a polarization_normal across the beam, got one along it")
    return BeamNumbers(direction, wavelength, normal, fraction)


def put_beam(model: Model, beam: BeamNumbers) -> Model:
    """``model`` with other numbers; what has not moved stays as it was."""
    old = read_beam("", model) if "direction" in model else None
    new = copy.deepcopy(model)
    if old is None or _moved(old.direction, beam.direction) or _moved(old.wavelength, beam.wavelength):
        new |= {"direction": beam.direction.tolist(), "wavelength": beam.wavelength}
        new.pop(f"s0{AT_SCAN_POINTS}", None)
    if old is None or _moved(electric_axis(old), electric_axis(beam)):
        new["polarization_normal"] = beam.normal.tolist()
    if old is None or _moved(old.fraction, beam.fraction):
        new["polarization_fraction"] = beam.fraction
    return new


def electric_axis(beam: BeamNumbers) -> np.ndarray:
    """The direction ``[3]`` of the electric vector of the polarised part."""
    across = np.cross(beam.normal, beam.direction)
    return across / np.linalg.norm(across)


def read_panels(path: object, model: Any) -> tuple[Panel, ...]:
    """Every panel in the laboratory, its groups' frames applied."""
    return tuple(
        _panel(Reader(path, f"detector, panel {number}", panel), frame)
        for number, (panel, frame) in enumerate(placed_panels(path, model))
    )


def put_panels(model: Model, panels: tuple[Panel, ...]) -> Model:
    """``model`` with its panels elsewhere, in the groups that they belong to; what has not moved stays as it was.

    Raises:
        ValueError: another number of panels, or of pixels.
    """
    old, new = read_panels("detector", model), copy.deepcopy(model)
    if len(old) != len(panels):
        raise ValueError(f"detectors: expected one for each of {len(old)} panels, got {len(panels)}")
    for number, (before, panel, (raw, frame)) in enumerate(zip(old, panels, placed_panels("", new), strict=True)):
        if before.pixels != panel.pixels:
            raise ValueError(f"detector {number}: expected {before.pixels} pixels as the panel, got {panel.pixels}")
        parts = ("fast", "slow", "origin")
        if any(_moved(getattr(before, part), getattr(panel, part)) for part in parts):
            raw |= panel_frame(panel, frame)
        if _moved(before.pixel_size, panel.pixel_size):
            raw["pixel_size"] = [panel.pixel_size] * 2
        if _moved(before.thickness, panel.thickness) or _moved(before.absorption, panel.absorption):
            raw |= {"thickness": panel.thickness, "mu": panel.absorption}
    return new


def panel_frame(panel: Panel, frame: Frame = _IDENTITY) -> Model:
    """The axes and the origin of a panel as its group counts them."""
    turn, origin = frame
    local = np.linalg.solve(turn, np.stack([panel.fast, panel.slow, panel.origin - origin], axis=1))
    fast, slow, corner = local.T.tolist()
    return {"fast_axis": fast, "slow_axis": slow, "origin": corner}


def placed_panels(path: object, model: Any) -> list[tuple[Model, Frame]]:
    """The mapping of each panel and the frame of the group that it is in."""
    reader = Reader(path, "detector", model)
    panels = [
        Reader(path, f"detector, panel {n}", raw).model for n, raw in enumerate(reader.rows("panels", _MOST_PANELS))
    ]
    if "hierarchy" not in model:
        return [(panel, _IDENTITY) for panel in panels]
    frames: dict[int, Frame] = {}
    for number, frame in _leaves(path, model["hierarchy"], _IDENTITY, 0):
        if not 0 <= number < len(panels):
            raise ValueError(
                f"{reader.where}: expected panels from 0 to {len(panels) - 1} in the hierarchy, got {number}"
            )
        if number in frames:
            raise ValueError(f"{reader.where}: expected each panel once in the hierarchy, got {number} again")
        frames[number] = frame
    if len(frames) != len(panels):
        missing = next(number for number in range(len(panels)) if number not in frames)
        raise ValueError(f"{reader.where}: expected each panel in the hierarchy, found panel {missing} in no group")
    return [(panel, frames[number]) for number, panel in enumerate(panels)]


def _leaves(path: object, node: Any, above: Frame, depth: int) -> Iterator[tuple[int, Frame]]:
    """The number of each panel under a group, and the group's frame."""
    reader = Reader(path, "detector, hierarchy", node)
    if depth > _DEEPEST:
        raise ValueError(f"{reader.where}: expected at most {_DEEPEST} groups in one another")
    frame = above
    if "fast_axis" in node:
        fast, slow, origin = _local(reader)
        turn, corner = above
        frame = (turn @ np.stack([fast, slow, np.cross(fast, slow)], axis=1), turn @ origin + corner)
    for child in reader.rows("children", _MOST_PANELS):
        if isinstance(child, dict) and "panel" in child:
            yield Reader(path, "detector, hierarchy", {"panel": [child["panel"]]}).whole("panel", 1)[0], frame
        else:
            yield from _leaves(path, child, frame, depth + 1)


def _local(reader: Reader) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Axes and origin as they stand, the axes of length 1 and across each other."""
    fast, slow = reader.unit("fast_axis", [1, 0, 0]), reader.unit("slow_axis", [0, 1, 0])
    if abs(float(fast @ slow)) > 1e-4:
        raise ValueError(f"{reader.where}: expected fast_axis and slow_axis at right angles, got others")
    return fast, slow, reader.vector("origin", 3, [0, 0, 0])


def _panel(reader: Reader, frame: Frame) -> Panel:
    fast, slow, origin = _local(reader)
    fast_pixels, slow_pixels = reader.whole("image_size", 2)
    require_pixels(reader.where, slow_pixels, fast_pixels)
    width, height = reader.vector("pixel_size", 2)
    if not width > 0 or abs(width - height) > 1e-6 * width:
        raise ValueError(f"{reader.where}: expected square pixels, got {width:g} x {height:g} mm")
    turn, corner = frame
    place = turn @ origin + corner
    normal = np.cross(turn @ fast, turn @ slow)
    if abs(float(normal @ place)) < 1e-9:
        raise ValueError(
            f"{reader.where}: expected a panel whose plane does not go through the sample, got one that does"
        )
    thickness, absorption = reader.number("thickness", 0.0), reader.number("mu", 0.0)
    if thickness < 0 or absorption < 0:
        raise ValueError(f"{reader.where}: expected thickness and mu >= 0, got {thickness:g} and {absorption:g}")
    name = reader.model.get("name", "")
    return Panel(
        name if isinstance(name, str) else "",
        turn @ fast,
        turn @ slow,
        place,
        (fast_pixels, slow_pixels),
        float(width),
        thickness,
        absorption,
    )


def read_goniometer(path: object, model: Any) -> Goniometer:
    """The axis that is scanned, and the rotations inside and outside of it; x and none without a goniometer."""
    if model is None:
        return Goniometer(np.array([1.0, 0.0, 0.0]), np.eye(3), np.eye(3))
    reader = Reader(path, "goniometer", model)
    if "axes" not in model:
        return Goniometer(
            reader.unit("rotation_axis"), reader.matrix("fixed_rotation"), reader.matrix("setting_rotation")
        )
    axes = [reader.direction("axes", axis) for axis in reader.rows("axes", 16)]
    angles = reader.vector("angles", len(axes))
    scanned = reader.number("scan_axis")
    if scanned not in range(len(axes)):
        raise ValueError(f"{reader.where}: expected a scan_axis from 0 to {len(axes) - 1}, got {scanned:g}")
    turns = [_rotation(axis, math.radians(angle)) for axis, angle in zip(axes, angles, strict=True)]
    fixed, setting = np.eye(3), np.eye(3)
    for number, turn in enumerate(turns):  # from the crystal outwards
        if number < scanned:
            fixed = turn @ fixed
        elif number > scanned:
            setting = turn @ setting
    return Goniometer(axes[int(scanned)], fixed, setting)


def read_scan(path: object, model: Any) -> Scan | None:
    """The images of a scan and their angles; None where nothing turns."""
    if model is None:
        return None
    reader = Reader(path, "scan", model)
    first, last = reader.whole("image_range", 2)
    if not 0 <= last - first < _MOST_IMAGES:
        raise ValueError(f"{reader.where}: expected an image_range of 1 to {_MOST_IMAGES} images, got {first} {last}")
    holder = Reader(path, "scan, properties", model["properties"]) if "properties" in model else reader
    if "oscillation" not in holder.model:
        return Scan(first, last, 0.0, 0.0)
    if holder is reader:
        start, width = reader.vector("oscillation", 2)
        return Scan(first, last, float(start), float(width))
    starts = holder.vector("oscillation", last - first + 1)
    width = float(starts[-1] - starts[0]) / (len(starts) - 1) if len(starts) > 1 else 0.0
    return Scan(first, last, float(starts[0]), width)


def put_scan(model: Model, scan: Scan) -> Model:
    """``model`` with other angles; what has not moved stays as it was."""
    old, new = read_scan("", model), copy.deepcopy(model)
    if old is None or not (_moved(old.start, scan.start) or _moved(old.width, scan.width)):
        return new
    if "properties" in new:
        new["properties"]["oscillation"] = [scan.start + n * scan.width for n in range(scan.last - scan.first + 1)]
    else:
        new["oscillation"] = [scan.start, scan.width]
    return new


def read_crystal(path: object, model: Any) -> np.ndarray:
    """``A`` ``[3, 3]``: a*, b*, c* as columns, 1/Å, before the goniometer turns them."""
    reader = Reader(path, "crystal", model)
    rows = np.stack([reader.vector(f"real_space_{axis}", 3) for axis in "abc"])
    lengths = np.linalg.norm(rows, axis=1)
    if not (lengths > 0).all() or abs(np.linalg.det(rows)) < 1e-6 * lengths.prod():
        raise ValueError(f"{reader.where}: expected real_space_a, _b and _c that span a cell, got {rows.tolist()}")
    return np.linalg.inv(rows)


def put_crystal(model: Model, matrix: np.ndarray) -> Model:
    """``model`` with another ``A``; what has not moved stays as it was."""
    new = copy.deepcopy(model)
    rows = np.linalg.inv(matrix)
    if "real_space_a" in model and not _moved(np.linalg.inv(read_crystal("", model)), rows):
        return new
    for axis, row in zip("abc", rows.tolist(), strict=True):
        new[f"real_space_{axis}"] = row
    for name in [name for name in new if name.endswith(AT_SCAN_POINTS) or name.startswith("recalculated_")]:
        del new[name]
    new.pop("B_covariance", None)
    return new


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    cross = np.cross(np.eye(3), axis)  # rows e_i x axis: the transpose of v -> axis x v, row by row
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _moved(before: Any, after: Any) -> bool:
    one, other = np.asarray(before, np.float64), np.asarray(after, np.float64)
    return bool((np.abs(one - other) > UNMOVED * np.maximum(1.0, np.abs(one).max())).any())


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"names {', '.join(list(map(str, value))[:5])}" if value else "no names"
    text = "none" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
