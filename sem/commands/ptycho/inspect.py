"""``sem ptycho inspect``: what a scan's file holds, what is wrong with it, which way its axes lie."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sem.commands.ptycho.options import add_reading, read

if TYPE_CHECKING:
    from sem.ptycho import ScanFile
    from sem.ptycho.inspection import Inspection

HELP = "say what a scan's file holds, draw it, try how its axes lie"
TRIAL = "trial"
LEAST_PATTERNS, LEAST_SWEEPS = 4, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The scan, how to read it, a picture, and with what to try axes."""
    parser.add_argument("file", metavar="FILE", help="a scan: .cxi, .ptyd, .npz or .h5")
    parser.add_argument("--picture", metavar="PNG", help="draw the mean pattern, the positions and the probe")
    add_reading(parser, trial=TRIAL)
    parser.add_argument("--patterns", type=int, default=64, metavar="J", help="to try axes on (default: %(default)s)")
    parser.add_argument("--sweeps", type=int, default=10, metavar="K", help="to try axes with (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print what the scan holds and what looks wrong with it; with ``--axes`` alone also how each of the 8 orientations
    of the axes fits."""
    from rich.console import Console
    from rich.table import Table

    from sem.ptycho.inspection import inspect_scan
    from sem.ptycho.pictures import draw_scan

    for name, least in (("patterns", LEAST_PATTERNS), ("sweeps", LEAST_SWEEPS)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name}: expected a whole number >= {least}, got {getattr(options, name)}")
    trial = options.axes == TRIAL
    contents = read(options, options.file, axes="+y+x" if trial else None)
    found = inspect_scan(contents)
    table = Table(show_header=False, title=options.file, title_justify="left")
    for row in _rows(contents, found):
        table.add_row(*row)
    Console().print(table)
    for warning in found.warnings:
        print(f"note: {warning}")
    if options.picture is not None:
        draw_scan(contents, options.picture)
        print(f"picture: {options.picture}")
    if trial:
        _try_axes(contents, options)
    return 0


def _rows(contents: ScanFile, found: Inspection) -> Iterator[tuple[str, str]]:
    scan, geometry = contents.scan, contents.geometry
    least, mean, most = found.dose
    yield "patterns", f"{found.patterns} of {found.side} x {found.side}"
    yield "object", f"{found.object_shape[0]} x {found.object_shape[1]} pixels hold all patches"
    yield (
        "counts of a pattern",
        f"{mean:.4g} in the mean, {least:.4g} to {most:.4g}; at most {found.brightest:.4g} a pixel",
    )
    yield (
        "masked pixels",
        f"{found.masked}{'' if scan.weight is None or scan.weight.dim() == 2 else ' of all patterns'}",
    )
    yield "dead pixels", f"{found.dead} valid ones never count, those around them do"
    yield "positions", f"over {found.extent[0]:.4g} x {found.extent[1]:.4g} pixels, {found.spacing:.4g} to the nearest"
    yield "periodicity", f"{found.periodicity:.2f} (1: a raster)"
    if contents.probe is None or found.radius is None:
        yield "probe", "none"
    else:
        modes = "1 mode" if len(contents.probe) == 1 else f"{len(contents.probe)} modes"
        yield "probe", f"{modes}, {found.probe_power:.4g} counts, radius {found.radius:.4g} pixels"
        yield "overlap", f"{found.overlap:.0%} of the probe's diameter"
        yield "outermost ring", f"{found.ring:.2g} of the probe's power"
    if geometry is None:
        yield "wavelength, pixel", "not in the file"
    else:
        yield "wavelength", f"{geometry.wavelength:.6g} Angstrom"
        yield "pixel of the object", f"{geometry.object_pixel * 1e9:.4g} nm"
    yield "object in the file", "none" if contents.object is None else " x ".join(map(str, contents.object.shape))
    if contents.provenance:
        text = " ".join(contents.provenance.split())
        yield "provenance", text if len(text) <= 200 else f"{text[:197]}..."


def _try_axes(contents: ScanFile, options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.ptycho.inspection import opposite, try_axes

    found = try_axes(contents, patterns=options.patterns, sweeps=options.sweeps)
    table = Table("axes", "misfit, probe as given", "misfit, probe refined", title="||A - X|| / ||X||, the best first")
    for trial in found:
        table.add_row(trial.axes, f"{trial.kept:.4f}", f"{trial.refined:.4f}")
    Console().print(table)
    best, other = found[0].axes, opposite(found[0].axes)
    print(f"fits best: --axes={best}; with a probe that is free, --axes={other} has the same patterns")
