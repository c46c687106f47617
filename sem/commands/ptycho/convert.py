"""``sem ptycho convert``: a scan from one format into another, or a result's object into an image."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from sem.commands.ptycho.options import add_reading, read

HELP = "write a scan in another format, or a result's object as .tif"
PARTS = ("object", "probe", "weight", "background")
IMAGES = (".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two files, what to leave out, and how to read a scan."""
    parser.add_argument("input", metavar="IN", help="a scan: .cxi, .ptyd, .npz or .h5; or a result, .h5")
    written = "file to write: of a scan .cxi, .npz or .h5; of a result .tif, amplitude and phase as pictures show them"
    parser.add_argument("output", metavar="OUT", help=written)
    left = f"not to be written, where a format cannot hold it: {', '.join(PARTS)}; may be repeated"
    parser.add_argument("--leave-out", action="append", default=[], choices=PARTS, metavar="PART", help=left)
    add_reading(parser)


def run(options: argparse.Namespace) -> int:
    """Write a ``.tif`` of a result's object, or the scan in the format that the output's name says."""
    from sem.ptycho import read_result, write_scan
    from sem.ptycho.comparison import shown
    from sem.ptycho.files.tiff import write_tiff

    if Path(options.output).suffix.lower() in IMAGES:
        result = read_result(options.input)
        object = shown(result)
        write_tiff(options.output, object, result.geometry)
        print(f"{options.output}: amplitude and phase of {object.shape[0]} x {object.shape[1]}")
        return 0
    contents = read(options, options.input)
    without, scan = options.leave_out, contents.scan
    scan = replace(
        scan,
        weight=None if "weight" in without else scan.weight,
        background=None if "background" in without else scan.background,
    )
    contents = replace(
        contents,
        scan=scan,
        object=None if "object" in without else contents.object,
        probe=None if "probe" in without else contents.probe,
    )
    write_scan(options.output, contents)
    print(f"{options.output}: {len(scan)} patterns of {scan.side} x {scan.side}")
    return 0
