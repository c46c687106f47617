"""``sem bench engines``: what the engines of ptychography reach on a scan of a known object, and in what time.

Exit status: 0 every score was reached (times vary with the machine and are only told), 1 one was not, 2 wrong
arguments.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sem.bench import names
from sem.bench.arguments import at_least, writable
from sem.command_line import Parser
from sem.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

    from sem.bench.engines import Result

HELP = "reconstruct scans of a known object by every engine; print scores, seconds and whether goals are reached"
SCHEMA = 1
MISSED = 1


def run(options: argparse.Namespace) -> int:
    """Measure what ``options`` ask for and return the exit status."""
    from rich.console import Console

    from sem.bench import report
    from sem.bench.engines import GOALS, SCAN_441, SMALL, Timed
    from sem.ptycho import floors
    from sem.training.devices import threads

    problem = SMALL if options.quick else SCAN_441
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    results: list[Result] = []
    with threads(options.threads):
        where = {**report.machine(), "load_before": report.load_average()}
        for goal in options.only or GOALS:
            for result in GOALS[goal](problem, Timed(options.repeats)):
                results.append(result)
                progress.print(f"{result.goal}, {result.engine}: {result.seconds:.2f} s, {verdict(result)}")
        where["load_after"] = report.load_average()
    floor = floors(problem.known().truth, problem.crop)
    console = report.console_for()
    scan = f"{problem.positions**2} patterns of {problem.pattern}²"
    scan += ", for which no goal was set" if options.quick else ""
    console.print(
        f"sem {where['sem']}, torch {where['torch']}, {report.title_of(where, options.threads)}, load "
        f"{report.shown_load(where['load_before'])} before and {report.shown_load(where['load_after'])} after; {scan}; "
        f"the quickest of {options.repeats} run(s); a constant image has amp ssim {floor.amp_ssim:.3f}, phase ssim "
        f"{floor.phase_ssim:.3f}"
    )
    console.print(_table(results))
    if options.json is not None:
        settings = {name: getattr(options, name) for name in ("threads", "repeats", "quick", "only")}
        lines = [{**vars(result), "scores": result.scores._asdict()} for result in results]
        document: dict[str, Any] = {"schema": SCHEMA, "machine": where, "settings": settings, "lines": lines}
        write_text(options.json, json.dumps(document, indent=2) + "\n")
    return 0 if options.quick or all(result.reached for result in results) else MISSED


def verdict(result: Result) -> str:
    """``missed``, ``reached``, or ``reached, too slow``, which fails nothing."""
    if not result.reached:
        return "missed"
    return "reached" if result.in_time else "reached, too slow"


def _table(results: Sequence[Result]) -> Table:
    from rich.table import Table

    table = Table()
    for title in ("goal", "engine", "sweeps", "s", "amp ssim", "phase ssim", "error", "chi²", "wanted", ""):
        table.add_column(
            title, overflow="fold", justify="left" if title in ("goal", "engine", "wanted", "") else "right"
        )
    for result in results:
        numbers = (result.scores.amp_ssim, result.scores.phase_ssim, result.scores.complex_error)
        shown = ["-" if number is None else f"{number:.4f}" for number in numbers]
        style = None if result.reached and result.in_time else "bold red"
        row = [result.goal, result.engine, str(result.sweeps), f"{result.seconds:.2f}", *shown]
        table.add_row(*row, f"{result.chi_squared:.3f}", result.wanted, verdict(result), style=style)
    return table


def add_arguments(parser: Parser) -> None:
    """The options of ``sem bench engines``."""
    only = f"only these goals, of {', '.join(names.GOALS)}; may be repeated"
    parser.add_argument("--only", action="append", choices=names.GOALS, metavar="GOAL", help=only)
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads (default: 1)")
    repeats = "runs of each engine, of which the quickest counts (default: 3)"
    parser.add_argument("--repeats", type=at_least(1), default=3, metavar="N", help=repeats)
    parser.add_argument("--quick", action="store_true", help="a small scan, for which there are no goals, in seconds")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure to FILE")
