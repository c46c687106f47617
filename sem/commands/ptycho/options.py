"""Settings as options of a command line: name, range, default and help come from the setting."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sem.settings import Section, setting_infos

if TYPE_CHECKING:
    from sem.ptycho import ScanFile

S = TypeVar("S", bound=Section)


def add_settings(
    parser: argparse._ActionsContainer,
    section: type[Section],
    *,
    without: Collection[str] = (),
    told: Mapping[str, str] | None = None,
) -> None:
    """An option for every setting of ``section``, absent ones None; :func:`given_settings` takes them.

    Args:
        without: names of settings to pass over.
        told: of some names, what to say in place of the setting's range and default.
    """
    for info in setting_infos(section):
        if info.name in without:
            continue
        default = "none" if info.default == () else "null" if info.default is None else info.default
        remark = (told or {}).get(info.name, f"{info.expected}; default: {default}")
        more: dict[str, Any] = {"metavar": info.name.upper()}
        if info.kind is bool:
            more = {"action": argparse.BooleanOptionalAction}
        elif info.kind is tuple:
            more["action"] = "append"
        text = f"{info.help} ({remark})".replace("%", "%%")
        parser.add_argument(option_of(info.name), default=None, help=text, **more)


def given_settings(options: argparse.Namespace, section: type[Section]) -> dict[str, Any]:
    """What the command line gave of the settings of ``section``, to be judged where that is built."""
    given = {}
    for info in setting_infos(section):
        value = getattr(options, info.name)
        if value is not None:
            given[info.name] = info.parse(value) if isinstance(value, str) else value
    return given


def built(section: type[S], values: Mapping[str, Any]) -> S:
    """A section of these values.

    Raises:
        ValueError: a value that cannot be; the message names the option.
    """
    try:
        return section(**values)
    except ValueError as error:
        named = re.sub(rf"\b{section.section}\.(\w+)", lambda found: option_of(found[1]), str(error))
        raise ValueError(named) from None


def option_of(name: str) -> str:
    """How the command line calls a setting."""
    return f"--{name.replace('_', '-')}"


READING = ("axes", "scan_index", "energy", "distance", "detector_pixel")
"""What :func:`add_reading` adds, by the names that it has among the options."""
GEOMETRY = {"energy": "of the photons, in keV", "distance": "from sample to detector, in m", "detector_pixel": "in m"}


def add_reading(parser: argparse.ArgumentParser, *, trial: str | None = None) -> None:
    """Options for how a scan's file is read, for :func:`read`.

    Args:
        trial: what ``--axes`` alone stands for, if it may stand alone.
    """
    axes = "which of the positions' axes, with which sign, runs down and which to the right, as --axes=-y+x"
    alone: dict[str, Any] = {} if trial is None else {"nargs": "?", "const": trial}
    if trial is not None:
        axes = f"alone: try all 8 by a few sweeps and print how each fits; else {axes}"
    parser.add_argument("--axes", metavar="AXES", help=f"{axes} (default: +y+x)", **alone)
    parser.add_argument("--scan-index", type=int, metavar="K", help="which scan of a .npz that holds several")
    for name, text in GEOMETRY.items():
        more = f"{text}, where the file does not say"
        parser.add_argument(option_of(name), type=float, metavar=name.upper(), help=more)


def read(options: argparse.Namespace, path: str, *, axes: str | None = None) -> ScanFile:
    """The scan in a file, with the geometry of the command line where the file has none.

    Args:
        axes: in place of the command line's.
    """
    from sem.ptycho import Geometry, photon_wavelength, read_scan

    axes = options.axes if axes is None else axes
    given = {"axes": axes, "scan_index": options.scan_index}
    contents = read_scan(path, **{name: value for name, value in given.items() if value is not None})
    numbers = {option_of(name): getattr(options, name) for name in GEOMETRY}
    there = [name for name, number in numbers.items() if number is not None]
    if not there:
        return contents
    if contents.geometry is not None:
        raise ValueError(f"{there[0]}: expected none, since {path} says it itself")
    if len(there) < len(numbers):
        raise ValueError(f"{there[0]}: expected {', '.join(numbers)} together, got {', '.join(there)} alone")
    energy, distance, detector_pixel = numbers.values()
    if not 0 < energy < math.inf:
        raise ValueError(f"--energy: expected a number > 0 of keV, got {energy:g}")
    return replace(contents, geometry=Geometry(photon_wavelength(energy), distance, detector_pixel, contents.scan.side))
