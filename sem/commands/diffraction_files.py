"""``sem diffraction inspect`` and ``convert``: what a file of the field holds, and the same in another format."""

from __future__ import annotations

import argparse

from sem.command_line import Command, Parser


def _add_inspect_arguments(parser: Parser) -> None:
    kinds = "reflections (hkl, MTZ, CIF), an image (CBF, EDF, TIFF, HDF5, SMV, ...) or dxtbx experiments"
    parser.add_argument("file", metavar="FILE", help=kinds)


def inspect(options: argparse.Namespace) -> int:
    """Print what the file holds."""
    from rich.console import Console
    from rich.table import Table

    from sem.diffraction import inspection

    table = Table(show_header=False, title=options.file, title_justify="left")
    for row in inspection.inspect(options.file):
        table.add_row(*row)
    Console().print(table, markup=False)
    return 0


def _add_convert_arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="IN", help="reflections (hkl, MTZ, CIF) or an image")
    parser.add_argument("target", metavar="OUT", help=".mtz, .hkl; .cbf, .edf, .tif, .h5, .nxs, .img, .bin")
    parser.add_argument("--column", metavar="NAME", help="of MTZ or CIF, where several may be meant")
    cell = "of the rows of an hkl file, for MTZ"
    parser.add_argument("--cell", nargs=6, type=float, metavar=("A", "B", "C", "ALPHA", "BETA", "GAMMA"), help=cell)
    parser.add_argument("--space-group", metavar="SYMBOL", help="of the MTZ file written (default: P 1)")
    parser.add_argument("--panel", type=int, metavar="N", help="of an image with several panels, from 0")
    parser.add_argument("--frame", type=int, default=0, metavar="N", help="exposure of an HDF5 file (default: 0)")


def convert(options: argparse.Namespace) -> int:
    """Write the target in the format that its name says, and print what was written."""
    from sem.diffraction import inspection

    said = inspection.convert(
        options.source,
        options.target,
        column=options.column,
        cell=options.cell,
        space_group=options.space_group,
        panel=options.panel,
        frame=options.frame,
    )
    print(f"wrote {options.target}: {said}")
    return 0


INSPECT = Command(
    help="what a file of reflections, an image or dxtbx experiments holds",
    add_arguments=_add_inspect_arguments,
    run=inspect,
)
CONVERT = Command(
    help="write reflections or an image in another format", add_arguments=_add_convert_arguments, run=convert
)
