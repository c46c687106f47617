"""``sem ptycho compare``: results of engines and networks on one scan, side by side with their floors."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.commands.ptycho.reconstruct import RESULT

if TYPE_CHECKING:
    from torch import Tensor

    from sem.ptycho import ResultFile

HELP = "compare results of engines and networks on one scan"
CONSTANT = "a constant image"
WIDTH = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The results, where the true object is, and files to write."""
    parser.add_argument("results", nargs="+", metavar="RESULT", help=f"{RESULT} of a reconstruction, or its folder")
    truth = "a scan's .h5 that holds the true object; by default the scan that the results are of, if it does"
    parser.add_argument("--truth", metavar="FILE", help=truth)
    parser.add_argument("--picture", metavar="PNG", help="draw the losses of all")
    parser.add_argument("--json", metavar="FILE", help="write the table's figures")


def run(options: argparse.Namespace) -> int:
    """Print sweeps, seconds and chi squared of every result and, where the true object is known, its scores, those of a
    constant image below them.

    Raises:
        ValueError: results of several scans and no ``--truth``, or a ``--truth`` without an object.
    """
    from sem.files import write_text
    from sem.ptycho import read_result
    from sem.ptycho.comparison import plain, scores_beside
    from sem.ptycho.pictures import draw_losses

    results = {name: read_result(Path(name) / RESULT if Path(name).is_dir() else name) for name in options.results}
    truth = _truth(options, results)
    rows = []
    floors: dict[str, float | None] = {}
    for path, result in results.items():
        scores: dict[str, float | None] = {}
        if truth is not None:
            scores, floors = map(plain, scores_beside(result, truth))
        rows.append({"result": path, "engine": result.name, **_last(result), **scores})
    _print_table(rows, floors)
    for sentence in _same(results):
        print(sentence)
    if truth is None:
        print("no scores: no true object is known; --truth FILE names a scan that holds it")
    if options.json is not None:
        document = {"results": rows, "floors": floors}
        write_text(options.json, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if options.picture is not None:
        draw_losses(list(results.values()), options.picture)
        print(f"picture: {options.picture}")
    return 0


def _print_table(rows: Sequence[Mapping[str, Any]], floors: Mapping[str, float | None]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.ptycho.comparison import TABLE, figure

    forms = {"sweeps": "d", "seconds": ".1f", "chi_squared": ".4g"}
    scores = [name for name in TABLE if name in floors]
    table = Table("result", "engine", *forms, *scores)
    for row in rows:
        run = ["-" if row[name] is None else format(row[name], form) for name, form in forms.items()]
        table.add_row(row["result"], row["engine"], *run, *(figure(row[name]) for name in scores))
    if floors:
        table.add_section()
        table.add_row(CONSTANT, *[""] * (1 + len(forms)), *(figure(floors[name]) for name in scores))
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)


def _truth(options: argparse.Namespace, results: dict[str, ResultFile]) -> Tensor | None:
    """The true object; of ``--truth``, which must hold one, or of the scan that all results name, if that is there."""
    from sem.ptycho import read_scan

    if options.truth is not None:
        object = read_scan(options.truth).object
        if object is None or zipfile.is_zipfile(options.truth):
            raise ValueError(f"--truth {options.truth}: expected a scan's .h5 with its object, found none")
        return object
    sources = {result.source for result in results.values()}
    if len(sources) > 1:
        raise ValueError(f"expected results of one scan, got {', '.join(sorted(sources))}; or name the --truth")
    (source,) = sources
    return read_scan(source).object if source.endswith(".h5") and Path(source).is_file() else None


def _last(result: ResultFile) -> dict[str, float | None]:
    """Sweeps, seconds and ``chi^2`` of a result; None where it does not say."""
    last = {name: values[-1] for name, values in result.losses.items() if values}
    found: dict[str, float | None] = {"sweeps": len(next(iter(result.losses.values()), [])) or None}
    for name in ("seconds", "chi_squared"):
        value = last.get(name)
        found[name] = value if value is not None and math.isfinite(value) else None
    return found


def _same(results: dict[str, ResultFile]) -> Iterator[str]:
    """A sentence for each two results that are one: equal scores of those prove nothing."""
    for (first, a), (second, b) in itertools.combinations(results.items(), 2):
        if a.object.equal(b.object):
            yield f"{first} and {second} hold one object, bit for bit: the same run"
