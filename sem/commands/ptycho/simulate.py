"""``sem ptycho simulate``: a scan of a known object, with its truth."""

from __future__ import annotations

import argparse

from sem.commands.ptycho.options import add_settings, built, given_settings
from sem.ptycho.presets import PRESETS, Simulation, preset

HELP = "simulate a scan of a known object"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file to write, and every setting of a simulation."""
    formats = "file to write: .h5 (all of it, with the object), .npz, or .cxi with --no-object-in-file"
    parser.add_argument("--output", required=True, metavar="FILE", help=formats)
    named = f"settings to begin with, which other options change: {', '.join(PRESETS)}"
    parser.add_argument("--preset", metavar="NAME", help=named)
    parser.add_argument("--no-object-in-file", action="store_true", help="keep the truth out of the file")
    add_settings(parser, Simulation)


def run(options: argparse.Namespace) -> int:
    """Write the scan; prints its size, counts and overlap, and what looks wrong with it."""
    from dataclasses import replace

    from sem.ptycho import write_scan
    from sem.ptycho.inspection import inspect_scan

    base = Simulation() if options.preset is None else preset(options.preset)
    settings = built(Simulation, base.to_mapping() | given_settings(options, Simulation))
    contents = settings.make()
    if options.no_object_in_file:
        contents = replace(contents, object=None)
    write_scan(options.output, contents)
    found = inspect_scan(contents)
    size = f"{found.patterns} patterns of {found.side} x {found.side}"
    print(f"{options.output}: {size}, {found.dose[1]:.4g} counts each in the mean, overlap {found.overlap:.0%}")
    for warning in found.warnings:
        print(f"note: {warning}")
    return 0
