"""``sem trace record`` and ``sem trace compare``: intermediate values, and where two computations part."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sem.command_line import Command, Parser

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.trace import Comparison

DIVERGED = 1
WIDTH = 110
DTYPES = ("float32", "float64")


def _add_cayley_arguments(parser: Parser) -> None:
    parser.add_argument("output", help="the file to write")
    parser.add_argument("--backend", default="native", help="native kernels or the plain-torch reference")
    parser.add_argument("--dtype", default="float32", help="float32 or, for the reference, float64")
    parser.add_argument("--device", default="cpu", help="device of the native kernels: cpu, cuda, xpu")
    parser.add_argument("--nodes", type=int, default=256, help="width of the token")
    parser.add_argument("--degree", type=int, default=8, help="mean number of neighbours on the small-world graph")
    parser.add_argument("--dt", type=float, default=0.1, help="time step")
    parser.add_argument("--tol", type=float, default=1e-5, help="relative residual to reach")
    parser.add_argument("--max_iter", type=int, default=50, help="most iterations")
    parser.add_argument("--seed", type=int, default=0, help="of the token, the graph and its weights")


def _add_diffraction_arguments(parser: Parser) -> None:
    parser.add_argument("output", help="the file to write")
    parser.add_argument("--pixel", type=int, nargs=2, metavar=("SLOW", "FAST"), help="counted from 0")
    experiment = "the experiment, one text in the words of sem diffraction simulate: '-cell 100 100 100 90 90 90 ...'"
    parser.add_argument("--flags", help=experiment)
    parser.add_argument(
        "--c_log", metavar="FILE", help="what nanoBragg printed with -trace_pixel, in place of a computation"
    )
    parser.add_argument("--backend", default="native", help="the CPU kernel (native) or the serial reference")
    parser.add_argument("--dtype", help="float32 or, for the reference, float64; the widest that there is if left out")


def _add_compare_arguments(parser: Parser) -> None:
    parser.add_argument("first", help="a trace of this program, or another program's lines 'name = value ...'")
    parser.add_argument("second", help="another")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="relative error up to which values agree")
    parser.add_argument("--absolute", type=float, default=0.0, help="added to it, for what is rounding noise itself")
    parser.add_argument("--all", action="store_true", help="show every quantity, not only those about a difference")
    parser.add_argument("--markdown", metavar="FILE", help="write the whole table as Markdown")
    parser.add_argument("--json", metavar="FILE", help="write the whole comparison as JSON")


def _record_cayley(options: Namespace) -> int:
    import torch

    from sem.ops import Topology
    from sem.trace.cayley import trace_cayley

    if options.dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {', '.join(DTYPES)}, got {options.dtype!r}")
    if options.backend == "native" and options.dtype != "float32":
        raise ValueError("--dtype float64: native kernels compute in float32; use --backend reference")
    dtype = getattr(torch, options.dtype)
    graph = Topology.small_world(options.nodes, options.degree, seed=options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    # drawn in float32, so that every precision starts from the same values
    psi = torch.view_as_complex(torch.randn(options.nodes, 2, generator=generator).to(dtype))
    weight = torch.rand(graph.num_edges, generator=generator).to(dtype)
    trace = trace_cayley(
        psi.to(options.device),
        weight.to(options.device),
        graph,
        options.dt / 2,
        options.tol,
        options.max_iter,
        backend=options.backend,
    )
    trace.header["seed"] = str(options.seed)
    trace.save(options.output)
    print(f"{options.output}: {len(trace.entries)} quantities")
    return 0


def _record_diffraction(options: Namespace) -> int:
    import torch

    from sem.diffraction.experiment import experiment_from
    from sem.trace.diffraction import trace_diffraction

    if options.dtype is not None and options.dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {', '.join(DTYPES)}, got {options.dtype!r}")
    if options.c_log is not None:
        return _record_c_log(options)
    for name in ("pixel", "flags"):
        if getattr(options, name) is None:
            raise ValueError(f"--{name}: expected a value, or --c_log with what the C program printed; got neither")
    experiment = experiment_from(shlex.split(options.flags))
    for note in experiment.notes:
        print(f"sem: {note}", file=sys.stderr)
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    slow, fast = options.pixel
    trace = trace_diffraction(experiment.simulator, (slow, fast), backend=options.backend, dtype=dtype)
    trace.header["flags"] = options.flags
    trace.save(options.output)
    print(f"{options.output}: {len(trace.entries)} quantities")
    return 0


def _record_c_log(options: Namespace) -> int:
    from sem.trace import read_trace
    from sem.trace.c_program import PROGRAM

    for name in ("pixel", "flags", "dtype"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name}: expected none with --c_log, whose trace is written as it is")
    trace = read_trace(options.c_log)
    if trace.header.get("program") != PROGRAM:
        raise ValueError(f"{options.c_log}: expected lines 'TRACE_C: name value ...', found none")
    trace.save(options.output)
    print(f"{options.output}: {len(trace.entries)} quantities")
    return 0


def _compare(options: Namespace) -> int:
    from sem.files import write_text
    from sem.trace import compare, read_trace
    from sem.trace.report import as_json, markdown, verdict

    names = (options.first, options.second)
    result = compare(read_trace(options.first), read_trace(options.second), options.tolerance, options.absolute)
    _print_table(result, names, options.all)
    if options.markdown:
        write_text(Path(options.markdown), markdown(result, names))
    if options.json:
        write_text(Path(options.json), json.dumps(as_json(result, names), indent=1, allow_nan=False) + "\n")
    print(verdict(result))
    return 0 if result.first_divergence is None else DIVERGED


def _print_table(result: Comparison, names: tuple[str, str], everything: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.trace.report import COLUMNS, cells, shown

    rows = list(shown(result, None if everything else 2))
    if not any(rows):
        return
    table = Table(*COLUMNS, title=f"{names[0]} against {names[1]}")
    first = result.first_divergence
    for row in rows:
        if row is None:
            table.add_row("...")
        else:
            style = "bold red" if row is first else "red" if row.differs else None
            table.add_row(*cells(row), style=style)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)


COMMAND = Command(
    help="record named intermediate values of a computation; find where two recordings part",
    subcommands={
        "record": Command(
            help="write a trace",
            subcommands={
                "cayley": Command(
                    help="write the intermediate values of one token's Cayley step",
                    add_arguments=_add_cayley_arguments,
                    run=_record_cayley,
                ),
                "diffraction": Command(
                    help="write the intermediate values of one pixel of a diffraction image",
                    add_arguments=_add_diffraction_arguments,
                    run=_record_diffraction,
                ),
            },
        ),
        "compare": Command(
            help="find the first divergence of two traces; exit status 1 if they differ, 2 for wrong arguments",
            add_arguments=_add_compare_arguments,
            run=_compare,
        ),
    },
)
