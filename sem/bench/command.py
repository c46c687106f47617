"""``sem bench``: every operator against its peers, in one process, correctness first.

Exit status: 0 measured (a missed bar included: timings vary), 1 a result was wrong, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sem.bench import engines_command, learning_command, step_command
from sem.bench.arguments import at_least, picture, writable
from sem.command_line import Command, Parser, command_of, perform
from sem.files import write_text

if TYPE_CHECKING:
    from sem.bench.peaks import Peaks
    from sem.bench.registry import Benchmark, Registry
    from sem.bench.runner import Line

FAILED = 1
LEAST_REPEATS = 7


def main(arguments: Sequence[str] | None = None, **registries: Registry) -> int:
    """Run ``sem bench`` with ``arguments`` (those of the process by default) and return its exit status.

    ``full`` holds the benchmarks, ``quick`` those of ``--quick``, ``growth`` and ``quick_growth`` the same for
    ``--growth``; what is not given are those of :mod:`sem.bench.cases`.

    Raises:
        ValueError: wrong arguments.
    """
    return perform(("sem", "bench"), command(**registries), sys.argv[1:] if arguments is None else arguments)


def command(**registries: Registry) -> Command:
    """``sem bench`` for benchmarks as :func:`main` takes them."""
    modules = {"learning": learning_command, "step": step_command, "engines": engines_command}
    return Command(
        help="time the operators against their peers",
        add_arguments=_add_arguments,
        run=partial(_run, registries),
        subcommands={name: command_of(module) for name, module in modules.items()},
    )


def _run(given: Mapping[str, Registry], options: argparse.Namespace) -> int:
    from sem.bench import cases, device_run, growth_plot, report
    from sem.bench.cases import device as device_cases
    from sem.training.devices import threads

    if options.device != "cpu":
        if options.growth:
            raise ValueError("--growth: expected --device cpu, there are no sizes for another device")
        full, quick = device_cases.benchmarks(options.device), device_cases.quick(options.device)
    elif options.growth:
        full, quick = given.get("growth", cases.GROWTH), given.get("quick_growth", cases.QUICK_GROWTH)
    else:
        full, quick = given.get("full", cases.BENCHMARKS), given.get("quick", cases.QUICK)
    chosen = (quick if options.quick else full).select(options.only)
    if options.list:
        print("\n".join(benchmark.name for benchmark in chosen))
        return 0
    if options.device != "cpu" and (missing := device_run.missing(options.device)) is not None:
        raise ValueError(f"--device {options.device}: {missing}; nothing was measured")
    measure_all = _on_the_cpu if options.device == "cpu" else partial(device_run.measure_all, options.device)
    with threads(options.threads):
        where = {**report.machine(), **device_run.described(options.device), "load_before": report.load_average()}
        lines, peaks = measure_all(chosen, options.repeats)
        where["load_after"] = report.load_average()
    settings = {name: getattr(options, name) for name in ("device", "threads", "repeats", "quick", "growth", "only")}
    report.print_table(lines, peaks, where, settings, report.console_for())
    if options.json is not None:
        text = json.dumps(report.document(lines, peaks, where, settings), indent=2, allow_nan=False)
        write_text(options.json, text + "\n")
    if options.plot is not None:
        title = report.title_of(where, options.threads)
        if options.growth:
            growth_plot.plot(
                lines, {benchmark.name: benchmark.point for benchmark in chosen}, peaks, options.plot, title
            )
        else:
            report.plot(lines, options.plot, title)
    return 0 if all(line.correct for line in lines) else FAILED


def _on_the_cpu(chosen: Sequence[Benchmark], repeats: int) -> tuple[list[Line], Peaks]:
    from sem.bench.peaks import measure_peaks
    from sem.bench.runner import run

    peaks = measure_peaks()
    lines = [line for benchmark in chosen for line in run(benchmark, repeats)]
    return lines, peaks.best(measure_peaks())


def _add_arguments(parser: Parser) -> None:
    device = "where the operators run: cpu (default), or cuda, at sizes that fill a GPU"
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=device)
    only = "only benchmarks with NAME in their name; may be repeated"
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=only)
    parser.add_argument("--list", action="store_true", help="print the names of the benchmarks and stop")
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads (default: 1)")
    repeats = f"timed rounds, at least {LEAST_REPEATS} (default: 9)"
    parser.add_argument("--repeats", type=at_least(LEAST_REPEATS), default=9, metavar="N", help=repeats)
    parser.add_argument("--quick", action="store_true", help="small problems without bars, in a few seconds")
    several = "every operator at several numbers of tokens, widths and so on; --plot draws the costs with their bounds"
    parser.add_argument("--growth", action="store_true", help=several)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure to FILE")
    parser.add_argument(
        "--plot", type=picture, metavar="FILE", help="draw the ratios, or with --growth the costs (needs matplotlib)"
    )
